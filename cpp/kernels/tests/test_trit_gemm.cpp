#include <stdexcept>

#include "kernel_test.hpp"

namespace tfmbs::kernels::test {
namespace {

class TritGemm : public KernelTest {
 protected:
  // Runs on memory of exactly the documented size, with columns beyond `outputs` as a canary.
  void check(const TritMatrix& activations, const TritMatrix& weights, bool triple,
             Random& random) {
    const std::size_t rows = activations.planes.rows();
    const std::size_t outputs = weights.planes.rows();
    const std::size_t depth = weights.planes.trits();
    const std::size_t stride = outputs + random.below(3);
    std::vector<std::int32_t> out(rows * stride);
    for (std::int32_t& value : out) value = static_cast<std::int32_t>(random.below(2000)) - 1000;
    std::vector<std::int32_t> expected = out;
    for (std::size_t m = 0; m < rows; ++m) {
      for (std::size_t n = 0; n < outputs; ++n) {
        std::int32_t sum = triple ? 3 * expected[m * stride + n] : 0;
        for (std::size_t k = 0; k < depth; ++k) {
          sum += activations.trits[m * depth + k] * weights.trits[n * depth + k];
        }
        expected[m * stride + n] = sum;
      }
    }
    GetParam().trit_gemm({.activations = activations.planes.view().words,
                          .rows = rows,
                          .weights = weights.planes.view().words,
                          .outputs = outputs,
                          .blocks = bit_plane_blocks(depth),
                          .out = out.data(),
                          .out_stride = stride,
                          .triple = triple});
    ASSERT_EQ(out, expected) << rows << " x " << outputs << " x " << depth
                             << (triple ? ", triple" : "");
  }
};

TEST_P(TritGemm, RandomShapes) {
  for (std::uint64_t i = 0; i < 150; ++i) {
    SCOPED_TRACE("seed " + std::to_string(case_seed(i)));
    Random random(case_seed(i));
    const std::size_t depth = random.from_to(1, 1100);
    const TritMatrix activations = random_trits(random, random.below(10), depth, random.real(0, 1));
    const TritMatrix weights = random_trits(random, random.below(71), depth, random.real(0, 1));
    ASSERT_NO_FATAL_FAILURE(check(activations, weights, random.chance(0.5), random));
  }
}

TEST_P(TritGemm, EveryTailOfOutputsAndRows) {
  Random random(case_seed(1000));
  for (std::size_t outputs = 0; outputs <= 35; ++outputs) {
    for (std::size_t rows = 0; rows <= 5; ++rows) {
      const TritMatrix activations = random_trits(random, rows, 70, 0.3);
      const TritMatrix weights = random_trits(random, outputs, 70, 0.3);
      ASSERT_NO_FATAL_FAILURE(check(activations, weights, rows % 2 == 0, random));
    }
  }
}

TEST_P(TritGemm, AroundAPowerOfTwo) {
  Random random(case_seed(2000));
  for (const std::size_t depth : {std::size_t{4095}, std::size_t{4096}, std::size_t{4097}}) {
    const TritMatrix activations = random_trits(random, 3, depth, 0.3);
    const TritMatrix weights = random_trits(random, 19, depth, 0.3);
    ASSERT_NO_FATAL_FAILURE(check(activations, weights, true, random));
  }
}

// The largest sums that a depth allows, which is where a narrow partial sum would overflow.
TEST_P(TritGemm, Extremes) {
  Random random(case_seed(3000));
  for (const std::size_t depth : {1UL, 511UL, 512UL, 513UL, 3584UL, 3585UL, 7168UL, 131072UL}) {
    for (const int a : {-1, 0, 1}) {
      for (const int w : {-1, 0, 1}) {
        const TritMatrix activations = constant_trits(3, depth, static_cast<std::int8_t>(a));
        const TritMatrix weights = constant_trits(9, depth, static_cast<std::int8_t>(w));
        ASSERT_NO_FATAL_FAILURE(check(activations, weights, false, random));
      }
    }
  }
}

TEST_P(TritGemm, TheGreatestDepth) {
  const BitPlaneMatrix zeros(1, kMaxDepth);
  std::vector<std::int32_t> out(1, 7);
  BitPlaneMatrix ones(1, kMaxDepth);
  for (std::size_t k = 0; k < kMaxDepth; k += 64)
    ones.data()[bit_plane_word(k)] = ~std::uint64_t{0};
  BitPlaneMatrix minus = BitPlaneMatrix(1, kMaxDepth);
  std::fill(minus.data(), minus.data() + minus.row_words(), ~std::uint64_t{0});
  const auto run = [&](const BitPlaneMatrix& activation) {
    GetParam().trit_gemm({.activations = activation.view().words,
                          .rows = 1,
                          .weights = ones.view().words,
                          .outputs = 1,
                          .blocks = bit_plane_blocks(kMaxDepth),
                          .out = out.data(),
                          .out_stride = 1,
                          .triple = false});
    return out[0];
  };
  EXPECT_EQ(run(ones), std::int32_t{1} << 24);
  EXPECT_EQ(run(minus), -(std::int32_t{1} << 24));
}

TFMBS_FOR_EVERY_SET(TritGemm);

}  // namespace
}  // namespace tfmbs::kernels::test
