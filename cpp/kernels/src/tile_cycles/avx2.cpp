// The scalar form, which the compiler turns into vectors of this instruction set.
#include "operations.hpp"
#include "tile_cycles/scalar_tile_cycles.hpp"

namespace tfmbs::kernels::avx2 {

void tile_cycles(const TileCyclesArgs& args) noexcept { tile_cycles_scalar(args); }

}  // namespace tfmbs::kernels::avx2
