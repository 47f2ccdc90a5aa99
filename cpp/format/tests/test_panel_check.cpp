#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "random_trits.hpp"
#include "tfmbs/format/panel_check.hpp"

namespace tfmbs {
namespace {

class PanelCheckTest : public ::testing::TestWithParam<WeightLayout> {};

// Every byte of some panels, changed to every value: refused at its offset unless the layout writes
// that byte there, which is then read as other trits.
TEST_P(PanelCheckTest, FindsEveryByteThatIsNoCode) {
  const WeightLayout layout = GetParam();
  std::mt19937_64 random(3);
  for (const auto& [outputs, depth] :
       {std::pair<std::size_t, std::size_t>{1, 1}, {17, 21}, {66, 5}}) {
    SCOPED_TRACE(std::to_string(outputs) + " x " + std::to_string(depth));
    const auto trits = random_trits(outputs * depth, 0.3, random);
    const auto packed = pack_bit_planes(trits, outputs, depth);
    ASSERT_TRUE(packed.ok());
    WeightPanels panels(layout, outputs, depth);
    ASSERT_TRUE(panels.set_rows(0, packed.value().view()).ok());
    const WeightPanelsView view = panels.view();
    auto* bytes = const_cast<std::uint8_t*>(view.bytes);
    for (std::size_t p = 0; p < view.panels(); ++p) {
      const auto rows = checked_panel_rows(view, p);
      ASSERT_TRUE(rows.ok()) << rows.error().message;
      std::vector<std::int8_t> back(rows.value().rows() * depth);
      ASSERT_TRUE(unpack_bit_planes(rows.value().view(), back).ok());
      ASSERT_TRUE(std::equal(back.begin(), back.end(), trits.data() + 64 * p * depth));
      const std::size_t end = p + 1 == view.panels() ? view.size() : view.panel_offset(p + 1);
      for (std::size_t at = view.panel_offset(p); at < end; at += 1 + random() % 5) {
        const std::uint8_t before = bytes[at];
        std::size_t accepted = 0;
        for (int value = 0; value < 256; ++value) {
          bytes[at] = static_cast<std::uint8_t>(value);
          const auto checked = checked_panel_rows(view, p);
          if (checked.ok()) {
            ++accepted;
          } else {
            ASSERT_EQ(checked.error().code, ErrorCode::kEncoding);
            ASSERT_EQ(checked.error().offset, at);
          }
        }
        bytes[at] = before;
        // As many as the byte has trits that count: 3^0...3^5.
        ASSERT_TRUE(accepted == 1 || accepted == 3 || accepted == 9 || accepted == 27 ||
                    accepted == 81 || accepted == 243)
            << accepted << " at " << at;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, PanelCheckTest, ::testing::ValuesIn(kWeightLayouts),
                         [](const auto& test) { return name_of(test.param); });

}  // namespace
}  // namespace tfmbs
