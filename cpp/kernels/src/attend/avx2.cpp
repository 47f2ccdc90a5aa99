#include "attend/attend.hpp"
#include "operations.hpp"

namespace tfmbs::kernels::avx2 {

void attend(const AttendArgs& args) noexcept { attend_in_lanes(args); }

}  // namespace tfmbs::kernels::avx2
