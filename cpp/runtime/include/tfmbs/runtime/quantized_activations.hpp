// The quantized activations of one forward, and what the closed form of its counters takes of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tfmbs/format/bit_planes.hpp"

namespace tfmbs::runtime {

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

struct QuantizedActivations {
  ActivationPlanes planes{};           // `words` may be null for int8 activations
  const std::int8_t* values{nullptr};  // of int8 activations, samples x depth
};

// Counted as the activations are quantized, some samples at a time, while these are in the nearest
// caches. A row here is a sample's plane.
struct ActivationCounts {
  // Of each sample and chunk: the cycles of a tile whose weights are occupied at every depth,
  // without kPassOverhead. Empty unless they were asked for.
  std::vector<std::uint32_t> cycles;
  std::uint64_t nonzeros{0};  // over all rows and depths, wherever cycles are counted
  // Of each depth: rows that are not zero there. Precondition: there are less than 2^32 rows.
  std::vector<std::uint32_t> columns;
  // Rows without a zero that `columns` leaves out: ternary samples that were counted together, and
  // none of which held one.
  std::uint64_t full_rows{0};
};

// What a forward wants besides what the product reads.
struct ActivationRequest {
  bool planes{false};                 // of int8 activations, all of them
  ActivationCounts* counts{nullptr};  // null: nobody counts
  std::uint32_t chunk_depth{0};       // of counts->cycles, a multiple of 15 or the depth; 0: none
};

// Who quantizes, once the device knows how a forward will run.
class ActivationSource {
 public:
  ActivationSource() = default;
  ActivationSource(const ActivationSource&) = delete;
  ActivationSource& operator=(const ActivationSource&) = delete;
  virtual ~ActivationSource() = default;
  // What it gives stays until its next call or its end. Throws std::bad_alloc.
  virtual QuantizedActivations quantize(const ActivationRequest& request) = 0;
};

}  // namespace tfmbs::runtime
