// What a forward would cost under a placement, from the mean of what its jobs cost before: for
// whoever plans placements. The time line is the closed form's own.
#pragma once

#include <cstdint>

#include "tfmbs/format/error.hpp"
#include "tfmbs/format/geometry.hpp"
#include "tfmbs/placement/schedule.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::device {

struct ForwardQuery {
  Geometry geometry{};
  placement::LayerShape shape{};
  placement::Placement placement{};
  std::uint64_t samples{1};
  bool loaded{false};  // a resident layer's weights lie in Bank A already
  // Mean engine cycles of a job of this placement, START and DRAIN included: compute_cycles / jobs.
  double cycles_per_job{0.0};
};

// Names are those of fabric::Counters.
struct ForwardEstimate {
  std::uint64_t cycles{0};
  std::uint64_t compute_cycles{0};
  std::uint64_t dma_cycles{0};
  std::uint64_t mem_reads{0};
  std::uint64_t mem_writes{0};
  std::uint64_t passes{0};
  std::uint64_t chunks{0};
  std::uint64_t jobs{0};  // passes x chunks x samples
};

// The forward's counters where every job takes the mean, a smaller chunk its share of it.
// Cycles are rounded to whole ones. Exact where all depths of all samples cost the same. Errors:
// kInvalidArgument (an empty or too large layer, a tile mask, a mean that no job can have),
// kPlacement (it does not lie in the bank, or is not of the words that such a layer takes).
Result<ForwardEstimate> estimate_forward(const ForwardQuery& query);

}  // namespace tfmbs::device

#pragma GCC visibility pop
