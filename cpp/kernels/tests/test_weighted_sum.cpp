#include <limits>

#include "kernel_test.hpp"

namespace tfmbs::kernels::test {
namespace {

class WeightedSum : public KernelTest {
 protected:
  void check(const std::vector<std::uint32_t>& values, const std::vector<std::uint16_t>& weights,
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
    const std::size_t size = random.below(random.below(2) == 0 ? 300 : 2000);
    const std::size_t rows = random.below(10);
    std::vector<std::uint32_t> values(size);
    std::vector<std::uint16_t> weights(rows * size);
    // Around the widths at which a set may take another way; they change within a row, and between
    // rows.
    const std::size_t run = 1 + random.below(1000);
    std::uint64_t limit = 0;
    for (std::size_t k = 0; k < size; ++k) {
      if (k % run == 0) limit = 1ULL << random.from_to(1, 32);
      values[k] = static_cast<std::uint32_t>(random.below(limit));
    }
    for (std::size_t k = 0; k < weights.size(); ++k) {
      if (k % run == 0) limit = 1ULL << random.from_to(1, 16);
      weights[k] = static_cast<std::uint16_t>(random.below(limit));
    }
    ASSERT_NO_FATAL_FAILURE(check(values, weights, rows));
  }
}

TEST_P(WeightedSum, LargestValues) {
  const std::vector<std::uint32_t> values{1, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0xFFFFFFFF};
  const std::vector<std::uint16_t> weights{1, 0x7FFF, 0x8000, 0xFFFF};
  for (const std::size_t size : {1UL, 15UL, 16UL, 17UL, 31UL, 32UL, 33UL, 64UL, 100UL, 5000UL}) {
    for (const std::uint32_t value : values) {
      for (const std::uint16_t weight : weights) {
        ASSERT_NO_FATAL_FAILURE(check(std::vector(size, value), std::vector(5 * size, weight), 5));
      }
    }
  }
}

// Where the products of a dword of sums just fit 32 bits, and where they do not.
TEST_P(WeightedSum, AroundThirtyTwoBits) {
  for (const std::size_t size : {2048UL, 8192UL, 65536UL}) {
    for (const std::uint32_t value : {255U, 256U, 4095U, 4096U, 32767U}) {
      for (const int weight : {255, 256, 2048, 4095, 4096, 8191, 32767}) {
        const std::vector weights(4 * size, static_cast<std::uint16_t>(weight));
        ASSERT_NO_FATAL_FAILURE(check(std::vector(size, value), weights, 4));
      }
    }
  }
}

TFMBS_FOR_EVERY_SET(WeightedSum);

}  // namespace
}  // namespace tfmbs::kernels::test
