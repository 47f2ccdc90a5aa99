#include <stdexcept>

#include "kernel_test.hpp"

namespace tfmbs::kernels::test {
namespace {

class ColumnCount : public KernelTest {
 protected:
  void check(const TritMatrix& activations) {
    const std::size_t rows = activations.planes.rows();
    const std::size_t trits = activations.planes.trits();
    std::vector<std::uint32_t> counts(trits);
    for (std::size_t k = 0; k < trits; ++k) counts[k] = static_cast<std::uint32_t>(k * 7);
    std::vector<std::uint32_t> expected = counts;
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t k = 0; k < trits; ++k) {
        expected[k] += activations.trits[r * trits + k] != 0 ? 1U : 0U;
      }
    }
    GetParam().column_count({.activations = activations.planes.view().words,
                             .rows = rows,
                             .trits = trits,
                             .counts = counts.data()});
    ASSERT_EQ(counts, expected) << rows << " x " << trits;
  }
};

TEST_P(ColumnCount, RandomShapes) {
  for (std::uint64_t i = 0; i < 150; ++i) {
    SCOPED_TRACE("seed " + std::to_string(case_seed(i)));
    Random random(case_seed(i));
    const std::size_t trits =
        random.chance(0.1) ? random.from_to(4095, 4097) : random.from_to(0, 1100);
    ASSERT_NO_FATAL_FAILURE(
        check(random_trits(random, random.below(30), trits, random.real(0, 1))));
  }
}

// A byte counts 255 rows.
TEST_P(ColumnCount, ManyRows) {
  for (const std::size_t rows : {254UL, 255UL, 256UL, 257UL, 511UL, 600UL}) {
    ASSERT_NO_FATAL_FAILURE(check(constant_trits(rows, 100, 1)));
    ASSERT_NO_FATAL_FAILURE(check(constant_trits(rows, 530, -1)));
    ASSERT_NO_FATAL_FAILURE(check(constant_trits(rows, 64, 0)));
  }
}

TFMBS_FOR_EVERY_SET(ColumnCount);

}  // namespace
}  // namespace tfmbs::kernels::test
