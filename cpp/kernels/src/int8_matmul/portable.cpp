#include <cstring>

#include "operations.hpp"
#include "portable_panel.hpp"

namespace tfmbs::kernels::portable {

void int8_matmul(const Int8MatmulArgs& args) noexcept {
  panel_product(args, [&](std::size_t m, std::size_t first, std::size_t count, std::int8_t* to) {
    std::memcpy(to, args.activations + m * args.row_stride + first, count);
  });
}

}  // namespace tfmbs::kernels::portable
