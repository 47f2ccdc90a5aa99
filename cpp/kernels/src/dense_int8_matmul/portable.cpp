#include "operations.hpp"

namespace tfmbs::kernels::portable {

void dense_int8_matmul(const DenseInt8MatmulArgs& args) noexcept {
  for (std::size_t m = 0; m < args.rows; ++m) {
    const std::int8_t* row = args.activations + m * args.row_stride;
    for (std::size_t n = 0; n < args.outputs; ++n) {
      const std::int8_t* weights = args.weights + n * args.weight_stride;
      std::int32_t sum = 0;
      for (std::size_t k = 0; k < args.depth; ++k) {
        sum += static_cast<std::int32_t>(row[k]) * weights[k];
      }
      args.out[m * args.out_stride + n] = sum;
    }
  }
}

}  // namespace tfmbs::kernels::portable
