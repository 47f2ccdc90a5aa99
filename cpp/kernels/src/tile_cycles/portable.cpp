#include "operations.hpp"
#include "tile_cycles/scalar_tile_cycles.hpp"

namespace tfmbs::kernels::portable {

void tile_cycles(const TileCyclesArgs& args) noexcept { tile_cycles_scalar(args); }

}  // namespace tfmbs::kernels::portable
