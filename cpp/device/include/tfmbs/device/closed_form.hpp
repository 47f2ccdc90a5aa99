// The counters of a layer's forward pass without stepping: the formula of
// docs/fabric-layers.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tfmbs/device/activation_counter.hpp"
#include "tfmbs/device/lane_statistics.hpp"
#include "tfmbs/execution/executor.hpp"
#include "tfmbs/fabric/counters.hpp"
#include "tfmbs/format/activations.hpp"
#include "tfmbs/placement/schedule.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::device {

// Of one piece of work. The tiles' counters, one for every tile of the device, are the caller's
// memory.
struct ForwardCounts {
  fabric::Counters total{};
  std::span<fabric::TileCounters> tiles{};
};

// What count_forward takes of a forward pass's activations.
[[nodiscard]] ActivationNeeds needs_of(const placement::Schedule& schedule,
                                       const LaneStatistics& statistics) noexcept;

// Adds the counts of all stages of one forward pass but for the load of a resident layer that
// missed. `statistics` must be of the schedule's lanes, tile count and group depth, the
// activations and their counts as needs_of() says. Preconditions: samples > 0. Throws
// std::bad_alloc.
void count_forward(const placement::Schedule& schedule, const LaneStatistics& statistics,
                   const QuantizedActivations& activations,
                   const ActivationCounts& activation_counts, const execution::Executor& executor,
                   ForwardCounts& counts);

// Adds the stage that loads a resident layer's weights.
void count_load(const placement::Schedule& schedule, ForwardCounts& counts) noexcept;

}  // namespace tfmbs::device

#pragma GCC visibility pop
