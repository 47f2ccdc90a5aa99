#include "composed_groups.hpp"
#include "operations.hpp"

namespace tfmbs::kernels::portable {

void grouped_int8_matmul(const GroupedInt8MatmulArgs& args) noexcept {
  composed::grouped_int8_matmul(args, int8_matmul);
}

}  // namespace tfmbs::kernels::portable
