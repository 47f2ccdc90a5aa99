// The counters of a layer's forward, without stepping: the formula of docs/fabric.md, "A layer".
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tfmbs/fabric/counters.hpp"
#include "tfmbs/placement/schedule.hpp"
#include "tfmbs/runtime/executor.hpp"
#include "tfmbs/runtime/lane_statistics.hpp"
#include "tfmbs/runtime/quantized_activations.hpp"

namespace tfmbs::runtime {

struct ForwardCounts {
  explicit ForwardCounts(std::uint32_t tile_count) : tiles(tile_count) {}

  fabric::Counters total{};
  std::vector<fabric::TileCounters> tiles;  // of every tile of the device

  void clear() noexcept {
    total = {};
    for (auto& tile : tiles) tile = {};
  }
};

// What count_forward takes of a forward's activations; `counts` receives it.
[[nodiscard]] ActivationRequest request_for(const placement::Schedule& schedule,
                                            const LaneStatistics& statistics,
                                            ActivationCounts& counts) noexcept;

// Adds the counts of all stages of one forward but for the load of a resident layer that missed.
// `statistics` must be of the schedule's lanes and tile count, the activations and their counts as
// request_for() asked. Preconditions: samples > 0.
void count_forward(const placement::Schedule& schedule, const LaneStatistics& statistics,
                   const QuantizedActivations& activations,
                   const ActivationCounts& activation_counts, const Executor& executor,
                   ForwardCounts& counts);

// Adds the stage that loads a resident layer's weights.
void count_load(const placement::Schedule& schedule, ForwardCounts& counts);

}  // namespace tfmbs::runtime
