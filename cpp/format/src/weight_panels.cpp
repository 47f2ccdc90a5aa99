#include "tfmbs/format/weight_panels.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <string>
#include <type_traits>

#include "panel_codes.hpp"
#include "tfmbs/format/large_memory.hpp"

namespace tfmbs {
namespace {

// Offset, inside a panel of `lines` lines, of the first byte of an output's group.
constexpr std::size_t offset_of(WeightLayout layout, std::size_t lines, std::size_t group,
                                std::size_t output) noexcept {
  const std::size_t held = line_outputs(layout);
  return (group * lines + output / held) * kPanelBytes + output % held * (kPanelBytes / held);
}

// Depths that units of 16 and of 20, and words of bit planes, divide.
constexpr std::size_t kChunkDepth = 320;
constexpr std::size_t kChunkWords = kChunkDepth / 64;

// One plane's words of a chunk of depths, word by word for all rows of a panel.
class ChunkOfPlane {
 public:
  void load(const std::uint64_t* plane, std::size_t row_words, std::size_t rows, std::size_t k) {
    std::size_t at[kChunkWords];
    for (std::size_t w = 0; w < kChunkWords; ++w) at[w] = bit_plane_word(k + 64 * w);
    const std::size_t held = static_cast<std::size_t>(
        std::find_if(at, at + kChunkWords, [&](std::size_t word) { return word >= row_words; }) -
        at);
    for (std::size_t r = 0; r < rows; ++r, plane += row_words) {
      for (std::size_t w = 0; w < held; ++w) words_[w][r] = plane[at[w]];
    }
    for (std::size_t w = held; w < kChunkWords; ++w) std::fill_n(words_[w], rows, 0);
  }
  // The bits from depth k of the chunk on, at least a unit's.
  void window(std::size_t k, std::size_t unit, std::size_t rows, std::uint32_t* to) const {
    const std::uint64_t* low = words_[k / 64];
    const std::size_t shift = k % 64;
    if (shift + unit <= 64) {
      for (std::size_t r = 0; r < rows; ++r) to[r] = static_cast<std::uint32_t>(low[r] >> shift);
      return;
    }
    const std::uint64_t* high = words_[k / 64 + 1];
    for (std::size_t r = 0; r < rows; ++r) {
      to[r] = static_cast<std::uint32_t>(low[r] >> shift | high[r] << (64 - shift));
    }
  }

 private:
  std::uint64_t words_[kChunkWords][kPanelOutputs];
};

// Calls function(constant) with the layout as a constant.
template <typename Function>
auto with_layout(WeightLayout layout, Function function) {
  switch (layout) {
    case WeightLayout::kTritQuads:
      return function(std::integral_constant<WeightLayout, WeightLayout::kTritQuads>{});
    case WeightLayout::kTritPairs:
      return function(std::integral_constant<WeightLayout, WeightLayout::kTritPairs>{});
    case WeightLayout::kTritFives:
      return function(std::integral_constant<WeightLayout, WeightLayout::kTritFives>{});
    case WeightLayout::kInt8Quads:
      return function(std::integral_constant<WeightLayout, WeightLayout::kInt8Quads>{});
    case WeightLayout::kInt8Fives:
      break;
  }
  return function(std::integral_constant<WeightLayout, WeightLayout::kInt8Fives>{});
}

// Rows of one panel, the first at `output`. Depth by depth, so that a line is filled while it is in
// the nearest cache.
template <WeightLayout kLayout>
void encode_rows(BitPlaneView rows, std::size_t output, std::size_t lines,
                 std::uint8_t* panel) noexcept {
  constexpr std::size_t kUnit = panel_codes::unit_depth(kLayout);
  const std::size_t step = lines * kPanelBytes;  // of a group
  ChunkOfPlane nonzero;
  ChunkOfPlane negative;
  for (std::size_t k = 0; k < rows.trits; k += kUnit) {
    const std::size_t within = k % kChunkDepth;
    if (within == 0) {
      nonzero.load(rows.words, rows.row_words(), rows.rows, k);
      negative.load(rows.words + kPlaneWords, rows.row_words(), rows.rows, k);
    }
    std::uint32_t codes[kPanelOutputs];
    std::uint32_t minus[kPanelOutputs];
    nonzero.window(within, kUnit, rows.rows, codes);
    negative.window(within, kUnit, rows.rows, minus);
    for (std::size_t r = 0; r < rows.rows; ++r) {
      codes[r] = panel_codes::encode<kLayout>(codes[r], minus[r]);
    }
    if constexpr (is_int8(kLayout)) {
      for (std::size_t r = 0; r < rows.rows; ++r) {
        std::uint8_t* to = panel + offset_of(kLayout, lines, k / kUnit, output + r);
        for (std::size_t j = 0; j < 4; ++j) to[j] = static_cast<std::uint8_t>(codes[r] >> 8 * j);
      }
    } else {
      std::uint8_t* to = panel + offset_of(kLayout, lines, k / trits_a_byte(kLayout), output);
      // The last unit of quads and pairs may have fewer groups.
      for (std::size_t j = 0; j < 4; ++j, to += step) {
        if (kUnit == 16 && k + 4 * j >= rows.trits) break;
        for (std::size_t r = 0; r < rows.rows; ++r) {
          to[r] = static_cast<std::uint8_t>(codes[r] >> 8 * j);
        }
      }
    }
  }
}

}  // namespace

void WeightPanelsView::decode(std::size_t p, std::size_t first, std::size_t count,
                              std::int8_t* out) const noexcept {
  const panel_codes::Decoder& decoder = panel_codes::decoder_of(layout);
  const std::size_t columns = is_int8(layout) ? 4 : 1;
  const std::size_t held = std::min(kPanelOutputs, outputs - p * kPanelOutputs);
  const std::size_t height = lines(p);
  const std::uint8_t* from = bytes + panel_offset(p);
  for (std::size_t k = first; k < first + count; ++k, out += kPanelOutputs) {
    const std::size_t within = k % group_depth(layout);
    const std::int8_t* trits = decoder.trits[within / columns];
    const std::size_t group = k / group_depth(layout);
    for (std::size_t n = 0; n < held; ++n) {
      out[n] = trits[from[offset_of(layout, height, group, n) + within % columns]];
    }
    std::fill(out + held, out + kPanelOutputs, std::int8_t{0});
  }
}

void WeightPanels::Release::operator()(std::uint8_t* memory) const noexcept {
  large_memory::release(memory, bytes);
}

WeightPanels::WeightPanels(WeightLayout layout, std::size_t outputs, std::size_t depth)
    : layout_(layout), outputs_(outputs), depth_(depth) {
  if (outputs == 0 || depth == 0) return;
  constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max();
  // Both rounded up, their product bounds the size.
  if (depth > kMax / 2 - kBlockTrits || outputs > kMax / 2 - kPanelOutputs ||
      (outputs + kPanelOutputs) > kMax / (depth + kBlockTrits)) {
    throw std::bad_array_new_length();
  }
  const std::size_t size = view().size();
  auto* bytes = static_cast<std::uint8_t*>(large_memory::allocate(size));
  bytes_ = {bytes, Release{size}};
  clear_panels({bytes, layout, outputs, depth});
}

void clear_panels(const WeightPanelsSpan& panels) noexcept {
  // The same byte everywhere.
  const std::uint8_t zero = with_layout(panels.layout, [](auto constant) {
    return static_cast<std::uint8_t>(panel_codes::encode<constant.value>(0, 0));
  });
  if (const std::size_t size = panels.view().size(); size != 0) {
    std::memset(panels.bytes, zero, size);
  }
}

Status set_panel_rows(const WeightPanelsSpan& panels, std::size_t first_output, BitPlaneView rows) {
  const auto& [bytes, layout, outputs, depth] = panels;
  if (rows.trits != depth || first_output > outputs || rows.rows > outputs - first_output) {
    return Error{ErrorCode::kInvalidArgument,
                 "set_panel_rows: " + std::to_string(rows.rows) + " rows of " +
                     std::to_string(rows.trits) + " trits given for the outputs from " +
                     std::to_string(first_output) + " on of " + std::to_string(outputs) + " x " +
                     std::to_string(depth) + " weights"};
  }
  for (std::size_t r = 0; r < rows.rows;) {
    const std::size_t p = (first_output + r) / kPanelOutputs;
    const std::size_t output = (first_output + r) % kPanelOutputs;
    const std::size_t count = std::min(kPanelOutputs - output, rows.rows - r);
    std::uint8_t* const panel = bytes + panels.view().panel_offset(p);
    const std::size_t lines = panels.view().lines(p);
    with_layout(layout, [&](auto constant) {
      encode_rows<constant.value>(rows.slice(r, count), output, lines, panel);
    });
    r += count;
  }
  return {};
}

BitPlaneMatrix panel_rows(const WeightPanelsView& panels, std::size_t first_output,
                          std::size_t count) {
  const WeightLayout layout = panels.layout;
  BitPlaneMatrix planes(count, panels.depth);
  const panel_codes::PlaneDecoder decode(layout);
  const std::size_t unit = panel_codes::unit_depth(layout);
  const std::size_t words = planes.row_words();
  for (std::size_t r = 0; r < count;) {
    const std::size_t p = (first_output + r) / kPanelOutputs;
    const std::size_t end = std::min(count, (p + 1) * kPanelOutputs - first_output);
    const std::size_t lines = panels.lines(p);
    const std::size_t step = is_int8(layout) ? 1 : lines * kPanelBytes;
    const std::uint8_t* panel = panels.bytes + panels.panel_offset(p);
    // Unit by unit, so that a line is read while it is in the nearest cache.
    for (std::size_t k = 0; k < panels.depth; k += unit) {
      const std::size_t group = k / group_depth(layout);
      const std::size_t bytes = is_int8(layout)
                                    ? panel_codes::kUnitBytes
                                    : std::min(panel_codes::kUnitBytes, panels.groups() - group);
      const std::size_t word = bit_plane_word(k);
      const std::size_t next = bit_plane_word(k + unit - 1);
      const std::size_t shift = k % 64;
      for (std::size_t n = r; n < end; ++n) {
        const std::size_t output = (first_output + n) % kPanelOutputs;
        const panel_codes::PlaneBits bits =
            decode(panel + offset_of(layout, lines, group, output), step, bytes);
        std::uint64_t* to = planes.row(n) + word;
        to[0] |= std::uint64_t{bits.nonzero} << shift;
        to[kPlaneWords] |= std::uint64_t{bits.negative} << shift;
        if (next == word || next >= words) continue;
        to += next - word;
        to[0] |= std::uint64_t{bits.nonzero} >> (64 - shift);
        to[kPlaneWords] |= std::uint64_t{bits.negative} >> (64 - shift);
      }
    }
    r = end;
  }
  return planes;
}

Result<WeightLayout> parse_weight_layout(std::string_view name) {
  std::string allowed;
  for (const WeightLayout layout : kWeightLayouts) {
    if (name == name_of(layout)) return layout;
    allowed += (allowed.empty() ? "'" : ", '") + std::string(name_of(layout)) + "'";
  }
  return Error{ErrorCode::kInvalidArgument,
               "weight layout is '" + std::string(name) + "'; allowed are " + allowed};
}

}  // namespace tfmbs
