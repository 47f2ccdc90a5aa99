// A layer's packed weights as its device sees them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "tfmbs/device/weight_trits.hpp"
#include "tfmbs/linear/packed_weights.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::runtime {

// Immutable once shared.
class LayerWeights final : public device::WeightTrits {
 public:
  explicit LayerWeights(linear::PackedWeights packed)
      : packed_(std::move(packed)), serial_(device::next_weight_serial()) {}

  [[nodiscard]] const linear::PackedWeights& packed() const noexcept { return packed_; }
  // Takes the serial of weights with the same trits: to the device they are the same.
  void share_serial(const LayerWeights& other) noexcept { serial_ = other.serial_; }

  [[nodiscard]] BitPlaneMatrix rows(std::size_t first, std::size_t count) const override {
    return packed_.rows(first, count);
  }
  [[nodiscard]] std::uint64_t serial() const noexcept override { return serial_; }
  [[nodiscard]] double sparsity() const noexcept override { return packed_.sparsity(); }

 private:
  linear::PackedWeights packed_;
  std::uint64_t serial_;
};

}  // namespace tfmbs::runtime

#pragma GCC visibility pop
