// Weights of a packed layer: they lie in the kernels' own layout in memory of a tensor's, and are
// read there.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "tfmbs/format/group_scales.hpp"
#include "tfmbs/format/weight_panels.hpp"
#include "tfmbs/runtime/weight_source.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::runtime {

struct PackedSource {
  WeightPanelsView panels{};
  std::span<const float> scales{};  // one, one an output, or GroupScalesView::size() of them
  std::size_t group{0};             // inputs of a group; 0: no groups
  // How a change is seen, as WeightSource says.
  std::optional<std::int64_t> panels_version{};
  std::optional<std::int64_t> scales_version{};
  const StorageOwner* panels_owner{nullptr};
  const StorageOwner* scales_owner{nullptr};

  [[nodiscard]] GroupScalesView groups() const noexcept {
    if (group == 0) return {};
    return {scales.data(), group, panels.outputs, panels.depth};
  }
};

// Errors: kInvalidArgument: a group size or layout that cannot be, or another number of scales.
Status check_packed(const PackedSource& source);

// A source's panels and group scales at a multiple of 64 bytes, as the kernels read them: where
// they lie, or where that is elsewhere (constants of an AOTInductor package), a copy.
struct AlignedPacked {
  WeightPanelsView panels;
  GroupScalesView groups;
  std::shared_ptr<const void> panels_copy;  // null: there is none
  std::shared_ptr<const void> groups_copy;
};
// Precondition: check_packed(source). Throws std::bad_alloc.
[[nodiscard]] AlignedPacked align(const PackedSource& source);

}  // namespace tfmbs::runtime

#pragma GCC visibility pop
