#include "operations.hpp"
#include "rms_norm/rms_norm.hpp"

namespace tfmbs::kernels::avx2 {

void rms_norm(const RmsNormArgs& args) noexcept { rms_norm_in_lanes(args); }

}  // namespace tfmbs::kernels::avx2
