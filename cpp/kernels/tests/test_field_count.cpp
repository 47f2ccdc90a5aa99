#include <stdexcept>

#include "kernel_test.hpp"

namespace tfmbs::kernels::test {
namespace {

class FieldCount : public KernelTest {
 protected:
  void check(const TritMatrix& activations, std::size_t chunk) {
    const std::size_t rows = activations.planes.rows();
    const std::size_t trits = activations.planes.trits();
    std::vector<std::uint32_t> cycles(rows * ((trits + chunk - 1) / chunk), 12345);
    std::uint64_t steps = 7;
    GetParam().field_count({.activations = activations.planes.view().words,
                            .rows = rows,
                            .trits = trits,
                            .chunk_depth = chunk,
                            .cycles = cycles.data(),
                            .steps = &steps});
    std::vector<std::uint32_t> expected_cycles;
    std::uint64_t expected_steps = 7;
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t begin = 0; begin < trits; begin += chunk) {
        const std::size_t end = std::min(trits, begin + chunk);
        std::uint32_t sum = 0;
        for (std::size_t field = begin; field < end; field += 15) {
          std::uint32_t count = 0;
          for (std::size_t k = field; k < std::min(end, field + 15); ++k) {
            count += activations.trits[r * trits + k] != 0 ? 1U : 0U;
          }
          expected_steps += count;
          sum += std::max(count, std::uint32_t{1});
        }
        expected_cycles.push_back(sum);
      }
    }
    ASSERT_EQ(steps, expected_steps) << rows << " x " << trits << ", chunks of " << chunk;
    ASSERT_EQ(cycles, expected_cycles) << rows << " x " << trits << ", chunks of " << chunk;
  }
};

TEST_P(FieldCount, RandomShapes) {
  for (std::uint64_t i = 0; i < 300; ++i) {
    SCOPED_TRACE("seed " + std::to_string(case_seed(i)));
    Random random(case_seed(i));
    const std::size_t trits =
        random.chance(0.1) ? random.from_to(4095, 4097) : random.from_to(1, 1100);
    // Mostly sparse: empty fields are the point.
    const double zeros = random.chance(0.3) ? random.real(0, 1) : random.real(0.9, 1);
    const std::size_t chunk =
        random.chance(0.3) ? (trits + 14) / 15 * 15 : 15 * random.from_to(1, 75);
    ASSERT_NO_FATAL_FAILURE(check(random_trits(random, random.below(9), trits, zeros), chunk));
  }
}

// One trit in a row: each lands in its field, whatever word, block or chunk it stands in.
TEST_P(FieldCount, OneTrit) {
  constexpr std::size_t kTrits = 1100;
  for (std::size_t k = 0; k < kTrits; ++k) {
    TritMatrix activations;
    activations.trits.assign(kTrits, 0);
    activations.trits[k] = k % 2 == 0 ? std::int8_t{1} : std::int8_t{-1};
    activations.planes = pack_bit_planes(activations.trits, 1, kTrits).value();
    ASSERT_NO_FATAL_FAILURE(check(activations, 15 * (1 + k % 40)));
    ASSERT_NO_FATAL_FAILURE(check(activations, 1110));
  }
}

TEST_P(FieldCount, Extremes) {
  for (const std::size_t trits : {1UL, 15UL, 16UL, 480UL, 512UL, 784UL, 1020UL, 7680UL, 131072UL}) {
    for (const std::size_t chunk : {15UL, 510UL, 1020UL, 15UL * 10000}) {
      for (const int trit : {-1, 0, 1}) {
        ASSERT_NO_FATAL_FAILURE(
            check(constant_trits(2, trits, static_cast<std::int8_t>(trit)), chunk));
      }
    }
  }
}

// More windows a chunk than a 16-bit count holds.
TEST_P(FieldCount, DeepChunk) {
  ASSERT_NO_FATAL_FAILURE(check(constant_trits(2, 300000, 1), 300000));
  ASSERT_NO_FATAL_FAILURE(check(constant_trits(1, 1200001, 1), 1200015));
}

TFMBS_FOR_EVERY_SET(FieldCount);

}  // namespace
}  // namespace tfmbs::kernels::test
