#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "random_trits.hpp"
#include "tfmbs/format/weight_panels.hpp"

namespace tfmbs {
namespace {

// The byte of the header's definition, by arithmetic on the trits of its depths.
int expected_byte(WeightLayout layout, const int (&t)[5]) {
  const int four = t[0] + 3 * t[1] + 9 * t[2] + 27 * t[3];
  const int magnitude = std::abs(four);
  const int fifth = t[4] < 0 ? 2 : t[4];
  switch (layout) {
    case WeightLayout::kTritQuads:
      return (t[0] + 1) + 3 * (t[1] + 1) + 9 * (t[2] + 1) + 27 * (t[3] + 1);
    case WeightLayout::kTritPairs:
      return (t[0] + 1) + 3 * (t[1] + 1) + 16 * ((t[2] + 1) + 3 * (t[3] + 1));
    case WeightLayout::kInt8Quads:
      return (t[0] + 1) + 4 * (t[1] + 1) + 16 * (t[2] + 1) + 64 * (t[3] + 1);
    case WeightLayout::kTritFives:
    case WeightLayout::kInt8Fives:
      break;
  }
  return 21 * fifth + magnitude % 21 + (magnitude >= 21 ? 64 : 0) + (four < 0 ? 128 : 0);
}

class WeightPanelsTest : public ::testing::TestWithParam<WeightLayout> {};

TEST_P(WeightPanelsTest, EveryByteAndBack) {
  const WeightLayout layout = GetParam();
  const std::size_t in_byte = trits_a_byte(layout);
  const std::size_t columns = is_int8(layout) ? 4 : 1;
  const std::size_t held = line_outputs(layout);
  std::mt19937_64 random(11);
  for (const std::size_t outputs : {1U, 15U, 16U, 17U, 63U, 64U, 65U, 130U}) {
    for (const std::size_t depth :
         {1U, 3U, 4U, 5U, 16U, 19U, 20U, 21U, 63U, 64U, 65U, 512U, 513U, 1031U}) {
      SCOPED_TRACE(std::to_string(outputs) + " x " + std::to_string(depth));
      const auto trits = random_trits(outputs * depth, 0.3, random);
      const auto packed = pack_bit_planes(trits, outputs, depth);
      ASSERT_TRUE(packed.ok());
      WeightPanels panels(layout, outputs, depth);
      const std::size_t cut = outputs / 3;
      ASSERT_TRUE(panels.set_rows(cut, packed.value().view().slice(cut, outputs - cut)).ok());
      ASSERT_TRUE(panels.set_rows(0, packed.value().view().slice(0, cut)).ok());
      const WeightPanelsView view = panels.view();
      ASSERT_EQ(reinterpret_cast<std::uintptr_t>(view.bytes) % 64, 0U);

      const auto trit = [&](std::size_t n, std::size_t k) {
        return n < outputs && k < depth ? int{trits[n * depth + k]} : 0;
      };
      const std::size_t unit = layout == WeightLayout::kTritFives ? 20 : in_byte * columns;
      const std::size_t padded = (depth + unit - 1) / unit * unit;
      std::size_t at = 0;
      for (std::size_t p = 0; p * 64 < outputs; ++p) {
        ASSERT_EQ(view.panel_offset(p), at);
        const std::size_t lines = (std::min<std::size_t>(64, outputs - 64 * p) + held - 1) / held;
        for (std::size_t k = 0; k < padded; k += in_byte * columns) {
          for (std::size_t byte = 0; byte < 64 * lines; ++byte, ++at) {
            const std::size_t n = 64 * p + byte / columns;
            int t[5] = {};
            for (std::size_t i = 0; i < in_byte; ++i) {
              t[i] = trit(n, k + columns * i + byte % columns);
            }
            ASSERT_EQ(view.bytes[at], expected_byte(layout, t)) << "byte " << at;
          }
        }
        const std::size_t first = depth / 3;
        std::vector<std::int8_t> decoded((depth - first) * 64, 9);
        view.decode(p, first, depth - first, decoded.data());
        for (std::size_t i = 0; i < decoded.size(); ++i) {
          ASSERT_EQ(decoded[i], trit(64 * p + i % 64, first + i / 64)) << i;
        }
      }
      ASSERT_EQ(panels.bytes(), at);
      const BitPlaneMatrix rows = panels.rows(cut, outputs - cut);
      std::vector<std::int8_t> again((outputs - cut) * depth);
      ASSERT_TRUE(unpack_bit_planes(rows.view(), again).ok());
      ASSERT_TRUE(std::equal(again.begin(), again.end(),
                             trits.begin() + static_cast<std::ptrdiff_t>(cut * depth)));
    }
  }
}

TEST_P(WeightPanelsTest, ZeroOnConstruction) {
  const WeightPanels panels(GetParam(), 70, 33);
  std::vector<std::int8_t> decoded(33 * 64, 9);
  for (std::size_t p = 0; p < 2; ++p) {
    panels.view().decode(p, 0, 33, decoded.data());
    EXPECT_EQ(decoded, std::vector<std::int8_t>(33 * 64, 0));
  }
}

TEST_P(WeightPanelsTest, WrongSizes) {
  WeightPanels panels(GetParam(), 5, 10);
  EXPECT_TRUE(panels.set_rows(0, BitPlaneMatrix(5, 10).view()).ok());
  EXPECT_TRUE(panels.set_rows(5, BitPlaneMatrix(0, 10).view()).ok());
  for (const auto& [first, rows, depth] : {std::array<std::size_t, 3>{0, 6, 10},
                                           {1, 5, 10},
                                           {6, 0, 10},
                                           {std::numeric_limits<std::size_t>::max(), 2, 10},
                                           {0, 5, 9},
                                           {0, 5, 11}}) {
    const Status status = panels.set_rows(first, BitPlaneMatrix(rows, depth).view());
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(status.error().message.find("5 x 10"), std::string::npos) << status.error().message;
  }
  constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max();
  EXPECT_THROW(WeightPanels(GetParam(), kMax, 1), std::bad_alloc);
  EXPECT_THROW(WeightPanels(GetParam(), 1, kMax), std::bad_alloc);
  EXPECT_THROW(WeightPanels(GetParam(), std::size_t{1} << 40, std::size_t{1} << 40),
               std::bad_alloc);
}

TEST_P(WeightPanelsTest, Empty) {
  EXPECT_EQ(WeightPanels(GetParam(), 0, 10).bytes(), 0U);
  EXPECT_EQ(WeightPanels(GetParam(), 10, 0).bytes(), 0U);
  EXPECT_EQ(WeightPanels().bytes(), 0U);
}

// Large matrices share pages: they come and go in any order, and never touch each other.
TEST(WeightPanelsMemory, LargeOnesComeAndGo) {
  struct Held {
    WeightPanels panels;
    BitPlaneMatrix rows;
  };
  std::mt19937_64 random(12);
  std::vector<Held> held;
  const auto intact = [](const Held& one) {
    const BitPlaneMatrix rows = one.panels.rows(0, one.rows.view().rows);
    const std::size_t words = rows.view().rows * rows.row_words();
    return std::equal(rows.view().words, rows.view().words + words, one.rows.view().words);
  };
  for (int step = 0; step < 60; ++step) {
    if (held.size() > 12 || (held.size() > 2 && random() % 3 == 0)) {
      const std::size_t at = random() % held.size();
      ASSERT_TRUE(intact(held[at])) << "step " << step;
      std::swap(held[at], held.back());
      held.pop_back();
      continue;
    }
    // 0.4 to 13 MB
    const std::size_t outputs = 512 + random() % 4000;
    const std::size_t depth = 4096 + random() % 12000;
    WeightPanels panels(step % 2 == 0 ? WeightLayout::kInt8Fives : WeightLayout::kTritQuads,
                        outputs, depth);
    ASSERT_EQ(reinterpret_cast<std::uintptr_t>(panels.view().bytes) % 64, 0U);
    // A few rows of random trits, the first and the last output among them.
    BitPlaneMatrix rows(outputs, depth);
    for (const std::size_t row : {std::size_t{0}, outputs / 2, outputs - 1}) {
      const auto packed = pack_bit_planes(random_trits(depth, 0.3, random), 1, depth);
      ASSERT_TRUE(packed.ok());
      std::copy_n(packed.value().view().words, rows.row_words(), rows.row(row));
    }
    ASSERT_TRUE(panels.set_rows(0, rows.view()).ok());
    held.push_back({std::move(panels), std::move(rows)});
  }
  for (const Held& one : held) EXPECT_TRUE(intact(one));
}

// What the five layouts are for: bits a weight of a large layer.
TEST(WeightPanelsBits, AWeight) {
  const auto bits = [](WeightLayout layout) {
    return 8.0 * static_cast<double>(WeightPanelsView{nullptr, layout, 4096, 4096}.size()) /
           (4096.0 * 4096.0);
  };
  EXPECT_EQ(bits(WeightLayout::kTritQuads), 2.0);
  EXPECT_EQ(bits(WeightLayout::kTritPairs), 2.0);
  EXPECT_EQ(bits(WeightLayout::kInt8Quads), 2.0);
  EXPECT_LT(bits(WeightLayout::kTritFives), 1.605);
  EXPECT_LT(bits(WeightLayout::kInt8Fives), 1.605);
}

INSTANTIATE_TEST_SUITE_P(Layouts, WeightPanelsTest, ::testing::ValuesIn(kWeightLayouts));

}  // namespace
}  // namespace tfmbs
