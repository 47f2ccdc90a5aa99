// A layer's packed weights as its device sees them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "tfmbs/device/weight_trits.hpp"
#include "tfmbs/linear/packed_weights.hpp"
#include "tfmbs/runtime/weight_source.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::runtime {

// Immutable once shared.
class LayerWeights final : public device::WeightTrits {
 public:
  // `storage`: of panels that lie in a tensor's memory, which may move or be freed after the
  // forward pass that read it; null where the weights have memory of their own.
  explicit LayerWeights(linear::PackedWeights packed,
                        std::shared_ptr<const RetainedStorage> storage = nullptr)
      : packed_(std::move(packed)),
        storage_(std::move(storage)),
        serial_(device::next_weight_serial()) {}

  [[nodiscard]] const linear::PackedWeights& packed() const noexcept { return packed_; }
  // Takes the serial of weights with the same trits: to the device they are the same.
  void share_serial(const LayerWeights& other) noexcept { serial_ = other.serial_; }

  [[nodiscard]] bool in_tensor_memory() const noexcept { return storage_ != nullptr; }

  // Zeros where the memory was freed. May be called long after the forward pass.
  [[nodiscard]] BitPlaneMatrix rows(std::size_t first, std::size_t count) const override {
    if (!storage_) return packed_.rows(first, count);
    WeightPanelsView panels = packed_.panels();
    const auto memory = storage_->memory();
    if (memory.size() < panels.size()) return {count, panels.depth};
    panels.bytes = reinterpret_cast<const std::uint8_t*>(memory.data());
    return panel_rows(panels, first, count);
  }
  [[nodiscard]] std::uint64_t serial() const noexcept override { return serial_; }
  [[nodiscard]] double sparsity() const noexcept override { return packed_.sparsity(); }

 private:
  linear::PackedWeights packed_;
  std::shared_ptr<const RetainedStorage> storage_;
  std::uint64_t serial_;
};

}  // namespace tfmbs::runtime

#pragma GCC visibility pop
