#include "kernel_test.hpp"

namespace tfmbs::kernels::test {
namespace {

// The digits of 243's balanced ternary, the most significant first, by searching for them.
std::vector<int> digits_of(int value) {
  std::vector<int> digits;
  for (const int weight : {243, 81, 27, 9, 3, 1}) {
    // What the digits below can still make up is less than half a weight.
    const int digit = 2 * value > weight ? 1 : 2 * value < -weight ? -1 : 0;
    digits.push_back(digit);
    value -= digit * weight;
  }
  EXPECT_EQ(value, 0);
  return digits;
}

class DigitCount : public KernelTest {
 protected:
  void check(const std::vector<std::int8_t>& values, std::size_t rows, std::size_t depth,
             std::size_t chunk) {
    std::vector<std::uint32_t> expected_cycles;
    std::vector<std::uint32_t> expected_counts(depth, 3);
    std::uint64_t expected_steps = 7;
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t begin = 0; begin < depth; begin += chunk) {
        const std::size_t end = std::min(depth, begin + chunk);
        std::uint32_t cycles = 0;
        for (std::size_t field = begin; field < end; field += 15) {
          std::uint32_t planes[6] = {};
          for (std::size_t k = field; k < std::min(end, field + 15); ++k) {
            const std::vector<int> digits = digits_of(values[r * depth + k]);
            for (std::size_t p = 0; p < 6; ++p) {
              if (digits[p] == 0) continue;
              ++planes[p];
              ++expected_counts[k];
              ++expected_steps;
            }
          }
          for (const std::uint32_t count : planes) cycles += std::max(count, std::uint32_t{1});
        }
        expected_cycles.push_back(cycles);
      }
    }
    for (const bool with_cycles : {true, false}) {
      std::vector<std::uint32_t> cycles(expected_cycles.size(), 12345);
      std::vector<std::uint32_t> counts(depth, 3);
      std::uint64_t steps = 7;
      // On memory of its own: a read beyond the values is seen under ASan.
      // NOLINTNEXTLINE(performance-unnecessary-copy-initialization)
      const std::vector<std::int8_t> given = values;
      GetParam().digit_count({.values = given.data(),
                              .rows = rows,
                              .depth = depth,
                              .chunk_depth = with_cycles ? chunk : 0,
                              .cycles = with_cycles ? cycles.data() : nullptr,
                              .steps = &steps,
                              .counts = counts.data()});
      if (with_cycles) {
        ASSERT_EQ(cycles, expected_cycles) << rows << " x " << depth << ", chunks of " << chunk;
      }
      ASSERT_EQ(counts, expected_counts) << rows << " x " << depth << ", chunks of " << chunk;
      ASSERT_EQ(steps, expected_steps) << rows << " x " << depth << ", chunks of " << chunk;
    }
  }
};

std::vector<std::int8_t> random_values(Random& random, std::size_t count) {
  // Small ranges leave the high planes empty.
  const std::size_t most = random.chance(0.5) ? 127 : random.from_to(0, 127);
  const double zeros = random.chance(0.5) ? 0 : random.real(0, 1);
  std::vector<std::int8_t> values(count);
  for (std::int8_t& value : values) {
    const auto any = static_cast<int>(random.from_to(0, 2 * most)) - static_cast<int>(most);
    value = static_cast<std::int8_t>(random.chance(zeros) ? 0 : any);
  }
  return values;
}

TEST_P(DigitCount, RandomShapes) {
  for (std::uint64_t i = 0; i < 400; ++i) {
    SCOPED_TRACE("seed " + std::to_string(case_seed(i)));
    Random random(case_seed(i));
    const std::size_t depth =
        random.chance(0.1) ? random.from_to(4090, 4100) : random.from_to(1, 500);
    const std::size_t rows = random.chance(0.1) ? random.from_to(40, 90) : random.below(6);
    const std::size_t chunk =
        random.chance(0.3) ? (depth + 14) / 15 * 15 : 15 * random.from_to(1, 40);
    ASSERT_NO_FATAL_FAILURE(check(random_values(random, rows * depth), rows, depth, chunk));
  }
}

TEST_P(DigitCount, EveryValueAtEveryPlaceOfAField) {
  for (std::size_t place = 0; place < 61; ++place) {
    std::vector<std::int8_t> values;
    for (int value = -127; value <= 127; ++value) {
      std::vector<std::int8_t> row(61, 0);
      row[place] = static_cast<std::int8_t>(value);
      values.insert(values.end(), row.begin(), row.end());
    }
    ASSERT_NO_FATAL_FAILURE(check(values, 255, 61, 15));
    ASSERT_NO_FATAL_FAILURE(check(values, 255, 61, 75));
  }
}

// 121 = 81 + 27 + 9 + 3 + 1 and 122 = 243 - 121 have the most digits: bytes of columns are full
// after 42 rows.
TEST_P(DigitCount, Extremes) {
  for (const std::size_t depth : {1UL, 15UL, 60UL, 64UL, 7680UL, 7681UL, 20000UL}) {
    for (const int value : {-127, -122, -121, 0, 1, 121, 122, 127}) {
      for (const std::size_t rows : {1UL, 42UL, 43UL, 86UL}) {
        if (rows * depth > 700000) continue;
        const std::vector<std::int8_t> values(rows * depth, static_cast<std::int8_t>(value));
        ASSERT_NO_FATAL_FAILURE(check(values, rows, depth, (depth + 14) / 15 * 15));
      }
    }
  }
}

TFMBS_FOR_EVERY_SET(DigitCount);

}  // namespace
}  // namespace tfmbs::kernels::test
