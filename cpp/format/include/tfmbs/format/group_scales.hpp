// Group scales: one fp32 scale for every group of consecutive inputs of an output. In files they
// are a matrix [outputs, ceil(inputs / group)], row after row; the grouped products read them in
// the order of the weight panels: panel by panel, in it group by group, in it 64 outputs. So a
// product streams both from the first byte to the last.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "tfmbs/format/error.hpp"
#include "tfmbs/format/weight_panels.hpp"

#pragma GCC visibility push(default)

namespace tfmbs {

// The sizes of a group, in inputs. The last group of an output has what is left.
inline constexpr std::size_t kScaleGroups[] = {32, 64, 128, 256};
inline constexpr std::size_t kLeastScaleGroup = 32;
inline constexpr std::size_t kMostScaleGroup = 256;

[[nodiscard]] constexpr bool is_scale_group(std::size_t inputs) noexcept {
  for (const std::size_t group : kScaleGroups) {
    if (group == inputs) return true;
  }
  return false;
}

// Whether weights in a layout can have group scales: a group's end must not cut a byte, so four
// trits a byte can, five cannot.
[[nodiscard]] constexpr bool takes_group_scales(WeightLayout layout) noexcept {
  return kLeastScaleGroup % group_depth(layout) == 0;
}

// A borrowed matrix of scales.
struct GroupScalesView {
  // Scale of output n and group g: values[(n / 64 * groups() + g) * 64 + n % 64]. 64-byte aligned.
  // The last panel has room for 64 outputs too, and may be read to its end.
  const float* values{nullptr};
  std::size_t group{kMostScaleGroup};  // one of kScaleGroups
  std::size_t outputs{0};
  std::size_t depth{0};

  [[nodiscard]] constexpr std::size_t groups() const noexcept {
    return (depth + group - 1) / group;
  }
  [[nodiscard]] constexpr std::size_t panels() const noexcept {
    return (outputs + kPanelOutputs - 1) / kPanelOutputs;
  }
  // Index of the scale of an output and a group.
  [[nodiscard]] constexpr std::size_t index(std::size_t output, std::size_t g) const noexcept {
    return (output / kPanelOutputs * groups() + g) * kPanelOutputs + output % kPanelOutputs;
  }
  [[nodiscard]] constexpr std::size_t size() const noexcept {
    return panels() * groups() * kPanelOutputs;
  }
};

// An owned one, all scales zero on construction. Move-only. Throws std::bad_alloc where there is no
// room. Precondition: is_scale_group(group).
class GroupScales {
 public:
  GroupScales() = default;
  GroupScales(std::size_t outputs, std::size_t depth, std::size_t group);

  [[nodiscard]] GroupScalesView view() const noexcept {
    return {values_.get(), group_, outputs_, depth_};
  }
  [[nodiscard]] std::size_t bytes() const noexcept { return view().size() * sizeof(float); }
  // Scales of the outputs first_output, first_output + 1, ..., groups() each, row after row, as
  // files have them. Touches these outputs alone, so threads may write disjoint outputs at once.
  // Errors: kInvalidArgument where they are no whole rows, or do not fit.
  Status set_rows(std::size_t first_output, std::span<const float> rows);
  // And back.
  [[nodiscard]] std::vector<float> rows(std::size_t first_output, std::size_t count) const;

 private:
  struct Release {
    std::size_t bytes;
    void operator()(float* memory) const noexcept;
  };
  std::unique_ptr<float[], Release> values_;
  std::size_t group_{kMostScaleGroup};
  std::size_t outputs_{0};
  std::size_t depth_{0};
};

}  // namespace tfmbs

#pragma GCC visibility pop
