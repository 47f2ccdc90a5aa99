#include "kernel_test.hpp"

namespace tfmbs::kernels::test {
namespace {

class PackFields : public KernelTest {
 protected:
  void check(const TritMatrix& activations, std::size_t copies, std::size_t gap) {
    const std::size_t rows = activations.planes.rows();
    const std::size_t trits = activations.planes.trits();
    const std::size_t stride = (trits + 14) / 15 * copies + gap;
    std::vector<std::uint16_t> fields(rows * stride, 0xABCD);
    std::vector<std::uint16_t> expected = fields;
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t j = 0; j < (trits + 14) / 15; ++j) {
        unsigned field = 0;
        for (std::size_t i = 0; i < 15 && 15 * j + i < trits; ++i) {
          if (activations.trits[r * trits + 15 * j + i] != 0) field |= 1U << i;
        }
        for (std::size_t i = 0; i < copies; ++i) {
          expected[r * stride + j * copies + i] = static_cast<std::uint16_t>(field);
        }
      }
    }
    GetParam().pack_fields({.activations = activations.planes.view().words,
                            .rows = rows,
                            .trits = trits,
                            .copies = copies,
                            .fields = fields.data(),
                            .row_stride = stride});
    ASSERT_EQ(fields, expected) << rows << " x " << trits << ", " << copies << " copies";
  }
};

TEST_P(PackFields, RandomShapes) {
  for (std::uint64_t i = 0; i < 300; ++i) {
    SCOPED_TRACE("seed " + std::to_string(case_seed(i)));
    Random random(case_seed(i));
    const std::size_t trits =
        random.chance(0.1) ? random.from_to(4095, 4097) : random.from_to(1, 1100);
    ASSERT_NO_FATAL_FAILURE(check(random_trits(random, random.below(5), trits, random.real(0, 1)),
                                  std::size_t{1} << random.below(5), random.below(3)));
  }
}

TEST_P(PackFields, OneTrit) {
  constexpr std::size_t kTrits = 1100;
  for (std::size_t k = 0; k < kTrits; ++k) {
    TritMatrix activations;
    activations.trits.assign(kTrits, 0);
    activations.trits[k] = -1;
    activations.planes = pack_bit_planes(activations.trits, 1, kTrits).value();
    ASSERT_NO_FATAL_FAILURE(check(activations, 1, 0));
  }
}

TFMBS_FOR_EVERY_SET(PackFields);

}  // namespace
}  // namespace tfmbs::kernels::test
