#include <cmath>
#include <stdexcept>

#include "kernel_test.hpp"
#include "tfmbs/kernels/weight_statistics.hpp"

namespace tfmbs::kernels::test {
namespace {

// The documented order, an element at a time.
AbsoluteSum expected_sum(FloatMatrix& row, double threshold) {
  double lanes[8] = {};
  AbsoluteSum expected;
  for (std::size_t i = 0; i < row.columns; ++i) {
    const double magnitude = std::fabs(row.get(0, i));
    if (std::isnan(magnitude) || !(threshold < 0 || magnitude > threshold)) continue;
    lanes[i % 8] += magnitude;
    ++expected.count;
  }
  expected.sum = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
                 ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
  return expected;
}

TEST(WeightStatistics, FollowTheDocumentedOrder) {
  for (const FloatType type : kFloatTypes) {
    for (std::uint64_t i = 0; i < 100; ++i) {
      SCOPED_TRACE("seed " + std::to_string(case_seed(i)));
      Random random(case_seed(i));
      const std::size_t columns = random.from_to(0, 1100);
      FloatMatrix row(type, 1, columns, columns);
      for (std::size_t k = 0; k < columns; ++k) {
        row.put(0, k, std::ldexp(random.real(-1, 1), static_cast<int>(random.below(20)) - 10));
      }
      if (columns > 0 && random.chance(0.3)) row.put(0, random.below(columns), std::nan(""));
      for (const double threshold : {-1.0, 0.0, 0.1}) {
        const AbsoluteSum expected = expected_sum(row, threshold);
        const AbsoluteSum got = absolute_sum(row.bytes.data(), type, columns, threshold);
        ASSERT_EQ(got.sum, expected.sum) << threshold;
        ASSERT_EQ(got.count, expected.count) << threshold;
      }
    }
  }
}

TEST(WeightStatistics, CountWhatIsAboveTheThreshold) {
  const float row[] = {0.5F, -0.5F, 0.25F, -2.0F, 0.0F, -0.0F, std::nanf(""), 1.0F, 0.5F};
  EXPECT_EQ(absolute_sum(row, FloatType::kFloat32, 9, -1.0).count, 8U);
  EXPECT_EQ(absolute_sum(row, FloatType::kFloat32, 9, 0.0).count, 6U);
  EXPECT_EQ(absolute_sum(row, FloatType::kFloat32, 9, 0.5).count, 2U);
  EXPECT_EQ(absolute_sum(row, FloatType::kFloat32, 9, 0.5).sum, 3.0);
  EXPECT_EQ(absolute_sum(row, FloatType::kFloat32, 9, std::nan("")).count, 0U);
  EXPECT_EQ(absolute_sum(nullptr, FloatType::kFloat32, 0, -1.0).sum, 0.0);
}

}  // namespace
}  // namespace tfmbs::kernels::test
