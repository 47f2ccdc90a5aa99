// A layer's weights as a device sees them: trits, and which state of them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tfmbs/format/bit_planes.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::device {

// Immutable. A device holds a reference as long as it may be asked for the bytes in Bank A.
class WeightTrits {
 public:
  WeightTrits() = default;
  WeightTrits(const WeightTrits&) = delete;
  WeightTrits& operator=(const WeightTrits&) = delete;
  virtual ~WeightTrits() = default;

  // Weights of the outputs [first, first + count). Throws std::bad_alloc.
  [[nodiscard]] virtual BitPlaneMatrix rows(std::size_t first, std::size_t count) const = 0;
  // Names this state of the trits, process-wide: what Bank A holds is current where it was loaded
  // from this serial.
  [[nodiscard]] virtual std::uint64_t serial() const noexcept = 0;
  // The share of zeros.
  [[nodiscard]] virtual double sparsity() const noexcept = 0;
};

// A serial that no other weights have.
[[nodiscard]] std::uint64_t next_weight_serial() noexcept;

}  // namespace tfmbs::device

#pragma GCC visibility pop
