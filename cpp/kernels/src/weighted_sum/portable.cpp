#include "operations.hpp"

namespace tfmbs::kernels::portable {

void weighted_sum(const WeightedSumArgs& args) noexcept {
  for (std::size_t r = 0; r < args.rows; ++r) {
    const std::uint16_t* weights = args.weights + r * args.size;
    std::uint64_t sum = 0;
    for (std::size_t k = 0; k < args.size; ++k) {
      sum += std::uint64_t{args.values[k]} * weights[k];
    }
    args.sums[r] = sum;
  }
}

}  // namespace tfmbs::kernels::portable
