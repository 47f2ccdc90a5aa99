// The one packed copy of a layer's weights, as the matrix products read it. Immutable once shared.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/format/weight_panels.hpp"
#include "tfmbs/runtime/executor.hpp"
#include "tfmbs/runtime/quantized_weights.hpp"

namespace tfmbs::runtime {

class PackedWeights {
 public:
  // Has a serial that no other state of any layer's trits has.
  PackedWeights(const QuantizedWeights& weights, WeightLayout layout, const Executor& executor);
  // The same weights in another layout.
  PackedWeights(const PackedWeights& other, WeightLayout layout, const Executor& executor);

  [[nodiscard]] WeightPanelsView panels() const noexcept { return panels_.view(); }
  // Empty: 1; one value: for all outputs; else one each.
  [[nodiscard]] const std::vector<double>& scales() const noexcept { return scales_; }
  // 1 where an output is NaN; empty: none is.
  [[nodiscard]] const std::vector<std::uint8_t>& nan_outputs() const noexcept {
    return nan_outputs_;
  }
  [[nodiscard]] double sparsity() const noexcept { return sparsity_; }
  // Names this state of the layer's trits, process-wide: what Bank A holds is current where it was
  // loaded from this serial.
  [[nodiscard]] std::uint64_t serial() const noexcept { return serial_; }
  // Takes the serial of weights with the same trits.
  void share_serial(const PackedWeights& other) noexcept { serial_ = other.serial_; }
  [[nodiscard]] bool has_trits_of(const PackedWeights& other) const;
  [[nodiscard]] std::size_t bytes() const noexcept;
  // Weights of the outputs [first, first + count) as bit planes, unpacked anew at every call.
  [[nodiscard]] BitPlaneMatrix rows(std::size_t first, std::size_t count) const {
    return panels_.rows(first, count);
  }
  [[nodiscard]] BitPlaneMatrix rows() const { return rows(0, panels().outputs); }

 private:
  WeightPanels panels_;
  std::vector<double> scales_;
  std::vector<std::uint8_t> nan_outputs_;
  double sparsity_;
  std::uint64_t serial_;
};

}  // namespace tfmbs::runtime
