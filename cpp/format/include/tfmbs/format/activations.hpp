// Borrowed views of quantized activations: what products, counters and the device all read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tfmbs/format/bit_planes.hpp"

#pragma GCC visibility push(default)

namespace tfmbs {

// `planes` planes, the most significant first, each a matrix of samples x depth.
struct ActivationPlanes {
  const std::uint64_t* words{nullptr};
  std::size_t samples{0};
  std::size_t depth{0};
  std::uint32_t planes{1};

  [[nodiscard]] BitPlaneView plane(std::uint32_t p) const noexcept {
    const BitPlaneView first{words, samples, depth};
    return {words + p * samples * first.row_words(), samples, depth};
  }
};

// The activations of a forward pass.
struct QuantizedActivations {
  ActivationPlanes planes{};           // `words` may be null for int8 activations
  const std::int8_t* values{nullptr};  // of int8 activations, samples x depth
};

// Consecutive rows of them, as they are made: one of the two is null.
struct ActivationRows {
  const std::uint64_t* planes{nullptr};  // bit-plane rows of ternary activations
  const std::int8_t* values{nullptr};    // of int8 activations, rows x depth
};

}  // namespace tfmbs

#pragma GCC visibility pop
