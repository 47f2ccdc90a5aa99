#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <new>
#include <vector>

#include "tfmbs/format/group_scales.hpp"

namespace tfmbs {
namespace {

TEST(GroupScales, EveryScaleAndBack) {
  for (const std::size_t group : kScaleGroups) {
    for (const std::size_t outputs : {1U, 63U, 64U, 65U, 200U}) {
      for (const std::size_t depth : {1U, 31U, 32U, 33U, 256U, 257U, 1000U}) {
        SCOPED_TRACE(std::to_string(outputs) + " x " + std::to_string(depth) + " by " +
                     std::to_string(group));
        GroupScales scales(outputs, depth, group);
        const std::size_t groups = (depth + group - 1) / group;
        ASSERT_EQ(scales.view().groups(), groups);
        ASSERT_EQ(reinterpret_cast<std::uintptr_t>(scales.view().values) % 64, 0U);
        std::vector<float> rows(outputs * groups);
        for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i + 1);
        const std::size_t cut = outputs / 3;
        const std::span<const float> all(rows);
        ASSERT_TRUE(scales.set_rows(cut, all.subspan(cut * groups)).ok());
        ASSERT_TRUE(scales.set_rows(0, all.first(cut * groups)).ok());
        ASSERT_EQ(scales.rows(0, outputs), rows);
        ASSERT_EQ(scales.rows(cut, 1),
                  std::vector<float>(rows.begin() + std::ptrdiff_t(cut * groups),
                                     rows.begin() + std::ptrdiff_t((cut + 1) * groups)));
        // The header's order, with the outputs that are missing as zeros.
        const float* at = scales.view().values;
        for (std::size_t p = 0; p * 64 < outputs; ++p) {
          for (std::size_t g = 0; g < groups; ++g) {
            for (std::size_t n = p * 64; n < p * 64 + 64; ++n, ++at) {
              ASSERT_EQ(*at, n < outputs ? rows[n * groups + g] : 0.0F) << n << ", group " << g;
            }
          }
        }
        ASSERT_EQ(scales.bytes(), 4 * static_cast<std::size_t>(at - scales.view().values));
      }
    }
  }
}

TEST(GroupScales, RefusesWhatDoesNotFit) {
  GroupScales scales(3, 100, 32);
  const std::vector<float> rows(12);
  const std::span<const float> all(rows);
  EXPECT_TRUE(scales.set_rows(0, all).ok());
  EXPECT_TRUE(scales.set_rows(3, {}).ok());
  for (const Status& status :
       {scales.set_rows(1, all), scales.set_rows(4, {}), scales.set_rows(0, all.first(5)),
        scales.set_rows(std::numeric_limits<std::size_t>::max(), all)}) {
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(GroupScales, EmptyAndTooLarge) {
  EXPECT_EQ(GroupScales(0, 100, 32).bytes(), 0U);
  EXPECT_EQ(GroupScales(100, 0, 32).bytes(), 0U);
  EXPECT_TRUE(GroupScales(100, 0, 32).rows(0, 100).empty());
  constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max();
  EXPECT_THROW(GroupScales(kMax, 1, 32), std::bad_alloc);
  EXPECT_THROW(GroupScales(1, kMax, 32), std::bad_alloc);
  EXPECT_THROW(GroupScales(kMax / 4096, 1 << 20, 32), std::bad_alloc);
}

TEST(GroupScales, Layouts) {
  for (const WeightLayout layout : kWeightLayouts) {
    EXPECT_EQ(takes_group_scales(layout), trits_a_byte(layout) == 4) << name_of(layout);
  }
  for (std::size_t inputs = 0; inputs < 300; ++inputs) {
    EXPECT_EQ(is_scale_group(inputs),
              inputs == 32 || inputs == 64 || inputs == 128 || inputs == 256);
  }
}

}  // namespace
}  // namespace tfmbs
