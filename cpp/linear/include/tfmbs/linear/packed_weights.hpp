// The one packed copy of a layer's weights, as the matrix products read it. Immutable once shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "tfmbs/execution/executor.hpp"
#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/format/error.hpp"
#include "tfmbs/format/group_scales.hpp"
#include "tfmbs/format/weight_panels.hpp"
#include "tfmbs/linear/quantized_weights.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::linear {

class PackedWeights {
 public:
  // Throws std::bad_alloc.
  PackedWeights(const QuantizedWeights& weights, WeightLayout layout,
                const execution::Executor& executor);
  // Weights that lie packed in memory of the caller's, which `owner` keeps (a tensor): nothing is
  // copied. `scales` as scales() below, or empty where `groups` are given; a scale that is NaN
  // makes its output NaN. Errors: kEncoding: bytes that are no codes of the layout. Preconditions:
  // 64-byte aligned; where there are groups, takes_group_scales(panels.layout).
  static Result<PackedWeights> borrow(WeightPanelsView panels, GroupScalesView groups,
                                      std::vector<double> scales, std::shared_ptr<const void> owner,
                                      const execution::Executor& executor);
  // The same weights in another layout.
  PackedWeights(const PackedWeights& other, WeightLayout layout,
                const execution::Executor& executor);

  [[nodiscard]] WeightPanelsView panels() const noexcept { return view_; }
  // Null values: there are none.
  [[nodiscard]] const GroupScalesView& group_scales() const noexcept { return groups_; }
  [[nodiscard]] bool has_groups() const noexcept { return groups_.values != nullptr; }
  [[nodiscard]] WeightLayout layout() const noexcept { return panels().layout; }
  [[nodiscard]] std::size_t outputs() const noexcept { return panels().outputs; }
  [[nodiscard]] std::size_t depth() const noexcept { return panels().depth; }
  // Empty: 1; one value: for all outputs; else one each.
  [[nodiscard]] const std::vector<double>& scales() const noexcept { return scales_; }
  // 1 where an output is NaN; empty: none is.
  [[nodiscard]] const std::vector<std::uint8_t>& nan_outputs() const noexcept {
    return nan_outputs_;
  }
  [[nodiscard]] double sparsity() const noexcept { return sparsity_; }
  [[nodiscard]] bool has_trits_of(const PackedWeights& other) const;
  [[nodiscard]] std::size_t bytes() const noexcept;
  // Weights of the outputs [first, first + count) as bit planes, unpacked anew at every call.
  [[nodiscard]] BitPlaneMatrix rows(std::size_t first, std::size_t count) const {
    return panel_rows(view_, first, count);
  }
  [[nodiscard]] BitPlaneMatrix rows() const { return rows(0, outputs()); }

 private:
  PackedWeights() = default;
  void mark_nan_outputs();

  WeightPanels panels_;  // empty where the memory is the caller's
  WeightPanelsView view_;
  GroupScalesView groups_{};
  std::shared_ptr<const void> owner_{};
  std::vector<double> scales_;
  std::vector<std::uint8_t> nan_outputs_;
  double sparsity_{0.0};
};

}  // namespace tfmbs::linear

#pragma GCC visibility pop
