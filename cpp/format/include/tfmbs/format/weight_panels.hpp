// Weight panels: the layouts that the matrix products read. 64 outputs are a panel; a panel is a
// sequence of groups of consecutive depths, so a product streams it from its first byte to its
// last. Each byte holds four or five trits of one output. Padding is zero trits.
//
// Layouts of the product trit x trit hold a group as 64 bytes, one an output: a byte is the index
// into a table of products with the activations of that group.
//   kTritQuads  4 depths: sum of (t[i] + 1) * 3^i, i = 0...3; 0...80
//   kTritPairs  4 depths: t[0] + 1 + 3 * (t[1] + 1) in the low nibble, t[2] and t[3] in the high
//   kTritFives  5 depths: a byte of five_code.hpp
// Layouts of the product int8 x trit hold a group of 16 outputs as 64 bytes, four an output: byte j
// holds the depths 4i + j of the group, which is how 8-bit dot-product instructions take them.
//   kInt8Quads  16 depths: t[4i + j] + 1 in bits 2i and 2i + 1, i = 0...3
//   kInt8Fives  20 depths: the same of t[4i + j], i = 0...4
// A last panel of these holds only as many sixteens of outputs as there are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/format/error.hpp"

#pragma GCC visibility push(default)

namespace tfmbs {

enum class WeightLayout : std::uint8_t {
  kTritQuads,
  kTritPairs,
  kTritFives,
  kInt8Quads,
  kInt8Fives
};
inline constexpr WeightLayout kWeightLayouts[] = {
    WeightLayout::kTritQuads, WeightLayout::kTritPairs, WeightLayout::kTritFives,
    WeightLayout::kInt8Quads, WeightLayout::kInt8Fives};

inline constexpr std::size_t kPanelOutputs = 64;
inline constexpr std::size_t kPanelBytes = 64;  // of one group: a cache line, an AVX-512 register

[[nodiscard]] constexpr const char* name_of(WeightLayout layout) noexcept {
  switch (layout) {
    case WeightLayout::kTritQuads:
      return "trit_quads";
    case WeightLayout::kTritPairs:
      return "trit_pairs";
    case WeightLayout::kTritFives:
      return "trit_fives";
    case WeightLayout::kInt8Quads:
      return "int8_quads";
    case WeightLayout::kInt8Fives:
      break;
  }
  return "int8_fives";
}
// Whether a layout is one of int8 x trit.
[[nodiscard]] constexpr bool is_int8(WeightLayout layout) noexcept {
  return layout == WeightLayout::kInt8Quads || layout == WeightLayout::kInt8Fives;
}
// Trits a byte.
[[nodiscard]] constexpr std::size_t trits_a_byte(WeightLayout layout) noexcept {
  return layout == WeightLayout::kTritFives || layout == WeightLayout::kInt8Fives ? 5 : 4;
}
// Depths a group.
[[nodiscard]] constexpr std::size_t group_depth(WeightLayout layout) noexcept {
  return trits_a_byte(layout) * (is_int8(layout) ? 4 : 1);
}
// Outputs that 64 bytes hold.
[[nodiscard]] constexpr std::size_t line_outputs(WeightLayout layout) noexcept {
  return is_int8(layout) ? 16 : kPanelOutputs;
}

// A borrowed matrix of weights in panels.
struct WeightPanelsView {
  const std::uint8_t* bytes{nullptr};  // 64-byte aligned
  WeightLayout layout{WeightLayout::kTritQuads};
  std::size_t outputs{0};
  std::size_t depth{0};

  [[nodiscard]] constexpr std::size_t panels() const noexcept {
    return (outputs + kPanelOutputs - 1) / kPanelOutputs;
  }
  [[nodiscard]] constexpr std::size_t groups() const noexcept {
    if (layout == WeightLayout::kTritFives) return (depth + 19) / 20 * 4;
    return (depth + group_depth(layout) - 1) / group_depth(layout);
  }
  // Lines of 64 bytes a group of panel p; less than a full panel's only in the last one.
  [[nodiscard]] constexpr std::size_t lines(std::size_t p) const noexcept {
    const std::size_t left = outputs - p * kPanelOutputs;
    const std::size_t held = left < kPanelOutputs ? left : kPanelOutputs;
    return (held + line_outputs(layout) - 1) / line_outputs(layout);
  }
  // Bytes from the first panel to panel p, and in all.
  [[nodiscard]] constexpr std::size_t panel_offset(std::size_t p) const noexcept {
    return p * groups() * (kPanelOutputs / line_outputs(layout)) * kPanelBytes;
  }
  [[nodiscard]] constexpr std::size_t size() const noexcept {
    if (outputs == 0) return 0;
    const std::size_t last = panels() - 1;
    return panel_offset(last) + groups() * lines(last) * kPanelBytes;
  }
  // Trits of panel p, depths [first, first + count), to out[k * 64 + output]; outputs beyond the
  // last are 0. Precondition: p < panels(), first + count <= depth.
  void decode(std::size_t p, std::size_t first, std::size_t count, std::int8_t* out) const noexcept;
};

// Bytes of a matrix in panels that are being written: the caller's memory, of shape.size() bytes,
// 64-byte aligned.
struct WeightPanelsSpan {
  std::uint8_t* bytes{nullptr};
  WeightLayout layout{WeightLayout::kTritQuads};
  std::size_t outputs{0};
  std::size_t depth{0};

  [[nodiscard]] constexpr WeightPanelsView view() const noexcept {
    return {bytes, layout, outputs, depth};
  }
};

// All weights zero.
void clear_panels(const WeightPanelsSpan& panels) noexcept;
// Writes the weights of the outputs first_output, first_output + 1, ..., one a row of bit planes.
// Touches the bytes of these outputs alone, so threads may write disjoint outputs at once.
// Errors: kInvalidArgument where the rows do not fit or have another depth.
Status set_panel_rows(const WeightPanelsSpan& panels, std::size_t first_output, BitPlaneView rows);
// And back. Throws std::bad_alloc.
[[nodiscard]] BitPlaneMatrix panel_rows(const WeightPanelsView& panels, std::size_t first_output,
                                        std::size_t count);

// Errors: kInvalidArgument, with the names that are allowed.
Result<WeightLayout> parse_weight_layout(std::string_view name);

// An owned one, all weights zero on construction. Move-only. Throws std::bad_alloc where there is
// no room.
class WeightPanels {
 public:
  WeightPanels() = default;
  WeightPanels(WeightLayout layout, std::size_t outputs, std::size_t depth);

  [[nodiscard]] WeightPanelsView view() const noexcept {
    return {bytes_.get(), layout_, outputs_, depth_};
  }
  [[nodiscard]] std::size_t bytes() const noexcept { return view().size(); }
  // As set_panel_rows and panel_rows.
  Status set_rows(std::size_t first_output, BitPlaneView rows) {
    return set_panel_rows({bytes_.get(), layout_, outputs_, depth_}, first_output, rows);
  }
  [[nodiscard]] BitPlaneMatrix rows(std::size_t first_output, std::size_t count) const {
    return panel_rows(view(), first_output, count);
  }

 private:
  struct Release {
    std::size_t bytes;
    void operator()(std::uint8_t* memory) const noexcept;
  };
  std::unique_ptr<std::uint8_t[], Release> bytes_;
  WeightLayout layout_{WeightLayout::kTritQuads};
  std::size_t outputs_{0};
  std::size_t depth_{0};
};

}  // namespace tfmbs

#pragma GCC visibility pop
