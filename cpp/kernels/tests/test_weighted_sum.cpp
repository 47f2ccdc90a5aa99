#include <limits>

#include "kernel_test.hpp"

namespace tfmbs::kernels::test {
namespace {

class WeightedSum : public KernelTest {
 protected:
  void check(const std::vector<std::uint32_t>& values, const std::vector<std::uint32_t>& weights,
             std::size_t rows) {
    const std::size_t size = values.size();
    std::vector<std::uint64_t> expected(rows);
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t k = 0; k < size; ++k) {
        expected[r] += std::uint64_t{values[k]} * weights[r * size + k];
      }
    }
    std::vector<std::uint64_t> sums(rows, 99);
    GetParam().weighted_sum({.values = values.data(),
                             .weights = weights.data(),
                             .rows = rows,
                             .size = size,
                             .sums = sums.data()});
    ASSERT_EQ(sums, expected) << rows << " x " << size;
  }
};

TEST_P(WeightedSum, RandomShapes) {
  for (std::uint64_t i = 0; i < 150; ++i) {
    SCOPED_TRACE("seed " + std::to_string(case_seed(i)));
    Random random(case_seed(i));
    const std::size_t size = random.below(300);
    const std::size_t rows = random.below(6);
    std::vector<std::uint32_t> values(size);
    std::vector<std::uint32_t> weights(rows * size);
    // Around the widths at which a set may take another way.
    const std::uint64_t value_limit = 1ULL << random.from_to(1, 32);
    const std::uint64_t weight_limit = 1ULL << random.from_to(1, 32);
    for (auto& value : values) value = static_cast<std::uint32_t>(random.below(value_limit));
    for (auto& weight : weights) weight = static_cast<std::uint32_t>(random.below(weight_limit));
    ASSERT_NO_FATAL_FAILURE(check(values, weights, rows));
  }
}

TEST_P(WeightedSum, LargestValues) {
  const std::uint32_t most = std::numeric_limits<std::uint32_t>::max();
  for (const std::size_t size : {1UL, 15UL, 16UL, 17UL, 63UL, 64UL, 79UL, 80UL, 100UL, 5000UL}) {
    ASSERT_NO_FATAL_FAILURE(check(std::vector(size, most), std::vector(size, most), 1));
    for (const std::uint32_t edge : {0x7FFFU, 0x8000U, 0xFFFFU, 0x10000U}) {
      ASSERT_NO_FATAL_FAILURE(check(std::vector(size, edge), std::vector(size, edge), 1));
      ASSERT_NO_FATAL_FAILURE(check(std::vector(size, edge), std::vector(size, 1U), 1));
      ASSERT_NO_FATAL_FAILURE(check(std::vector(size, 1U), std::vector(size, edge), 1));
    }
  }
}

TFMBS_FOR_EVERY_SET(WeightedSum);

}  // namespace
}  // namespace tfmbs::kernels::test
