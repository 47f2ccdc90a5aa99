#include "composed_groups.hpp"
#include "operations.hpp"

namespace tfmbs::kernels::portable {

void grouped_trit_matmul(const GroupedTritMatmulArgs& args) noexcept {
  composed::grouped_trit_matmul(args, trit_matmul);
}

}  // namespace tfmbs::kernels::portable
