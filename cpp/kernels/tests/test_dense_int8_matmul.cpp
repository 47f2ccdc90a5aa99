#include "kernel_test.hpp"

namespace tfmbs::kernels::test {
namespace {

class DenseInt8Matmul : public KernelTest {
 protected:
  // Rows of both matrices are apart by more than their length.
  static void check(const KernelSet& set, const std::vector<std::int8_t>& activations,
                    const std::vector<std::int8_t>& weights, std::size_t rows, std::size_t outputs,
                    std::size_t depth) {
    const std::size_t row_stride = rows == 0 ? depth : activations.size() / rows;
    const std::size_t weight_stride = outputs == 0 ? depth : weights.size() / outputs;
    const std::size_t out_stride = outputs + 3;
    std::vector<std::int32_t> expected(rows * out_stride, 99);
    for (std::size_t m = 0; m < rows; ++m) {
      for (std::size_t n = 0; n < outputs; ++n) {
        std::int64_t sum = 0;
        for (std::size_t k = 0; k < depth; ++k) {
          sum += std::int64_t{activations[m * row_stride + k]} * weights[n * weight_stride + k];
        }
        expected[m * out_stride + n] = static_cast<std::int32_t>(sum);
      }
    }
    std::vector<std::int32_t> out(rows * out_stride, 99);
    set.dense_int8_matmul({.activations = activations.data(),
                           .rows = rows,
                           .row_stride = row_stride,
                           .weights = weights.data(),
                           .weight_stride = weight_stride,
                           .outputs = outputs,
                           .depth = depth,
                           .out = out.data(),
                           .out_stride = out_stride});
    ASSERT_EQ(out, expected) << rows << " x " << outputs << " x " << depth;
  }
};

TEST_P(DenseInt8Matmul, RandomShapes) {
  for (std::uint64_t i = 0; i < case_count(300); ++i) {
    SCOPED_TRACE("seed " + std::to_string(case_seed(i)));
    Random random(case_seed(i));
    const std::size_t rows = random.below(12);
    const std::size_t outputs = random.below(12);
    const std::size_t depth = random.below(random.chance(0.5) ? 40 : 700);
    const auto values = [&](std::size_t size) {
      std::vector<std::int8_t> made(size);
      for (std::int8_t& value : made) {
        value = static_cast<std::int8_t>(static_cast<int>(random.below(255)) - 127);
      }
      return made;
    };
    ASSERT_NO_FATAL_FAILURE(check(GetParam(), values(rows * (depth + random.below(5))),
                                  values(outputs * (depth + random.below(5))), rows, outputs,
                                  depth));
  }
}

TEST_P(DenseInt8Matmul, ExtremesAtTheGreatestDepth) {
  for (const int x : {-127, 127}) {
    for (const int w : {-127, 127}) {
      for (const std::size_t depth : {31UL, 32UL, 33UL, kMaxDenseDepth}) {
        ASSERT_NO_FATAL_FAILURE(
            check(GetParam(), std::vector(5 * depth, static_cast<std::int8_t>(x)),
                  std::vector(3 * depth, static_cast<std::int8_t>(w)), 5, 3, depth));
      }
    }
  }
}

TFMBS_FOR_EVERY_SET(DenseInt8Matmul);

}  // namespace
}  // namespace tfmbs::kernels::test
