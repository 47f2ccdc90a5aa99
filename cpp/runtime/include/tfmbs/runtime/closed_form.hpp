// The counters of a layer's forward, without stepping: the formula of docs/fabric.md, "A layer".
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tfmbs/fabric/counters.hpp"
#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/placement/schedule.hpp"
#include "tfmbs/runtime/executor.hpp"
#include "tfmbs/runtime/lane_statistics.hpp"

namespace tfmbs::runtime {

// The quantized activations of a forward: `planes` planes, the most significant first, each a
// matrix of samples x depth.
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

struct ForwardCounts {
  explicit ForwardCounts(std::uint32_t tile_count) : tiles(tile_count) {}

  fabric::Counters total{};
  std::vector<fabric::TileCounters> tiles;  // of every tile of the device

  void clear() noexcept {
    total = {};
    for (auto& tile : tiles) tile = {};
  }
};

// Adds the counts of all stages of one forward but for the load of a resident layer that missed.
// `statistics` must be of the schedule's lanes and tile count. Preconditions: samples > 0.
void count_forward(const placement::Schedule& schedule, const LaneStatistics& statistics,
                   const ActivationPlanes& activations, const Executor& executor,
                   ForwardCounts& counts);

// Adds the stage that loads a resident layer's weights.
void count_load(const placement::Schedule& schedule, ForwardCounts& counts);

}  // namespace tfmbs::runtime
