#include "tfmbs/device/estimate.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "tfmbs/kernels/kernels.hpp"
#include "time_line.hpp"

namespace tfmbs::device {
namespace {

using placement::Placement;
using placement::Schedule;

// Outputs x depth x samples; beyond it counters might not fit in 64 bits.
constexpr double kMaxProducts = 0x1p52;

Status check_work(const ForwardQuery& query) {
  const auto& [outputs, depth, planes, group_depth] = query.shape;
  if (outputs == 0 || depth == 0 || depth > kMaxDepth ||
      static_cast<double>(outputs) * static_cast<double>(depth) *
              static_cast<double>(query.samples) >
          kMaxProducts) {
    return Error{ErrorCode::kInvalidArgument,
                 "a forward of " + std::to_string(query.samples) + " samples through " +
                     std::to_string(outputs) + " x " + std::to_string(depth) +
                     " weights; allowed are layers that are not empty, depths to " +
                     std::to_string(kMaxDepth) + ", and 2^52 multiplications"};
  }
  if (planes != 1 && planes != kernels::kInt8Planes) {
    return Error{ErrorCode::kInvalidArgument, std::to_string(planes) +
                                                  " activation planes; allowed are 1 and " +
                                                  std::to_string(kernels::kInt8Planes)};
  }
  return {};
}

// Between a job that steps through nothing and one that skips nothing.
Status check_mean(const ForwardQuery& query, const Schedule& schedule) {
  const std::uint64_t dense =
      kPassOverhead + std::uint64_t{query.shape.planes} * schedule.chunk_depth();
  if (query.cycles_per_job >= static_cast<double>(kPassOverhead) &&
      query.cycles_per_job <= static_cast<double>(dense)) {
    return {};
  }
  return Error{ErrorCode::kInvalidArgument,
               "engine_cycles_per_job is " + std::to_string(query.cycles_per_job) +
                   "; a job of this placement takes " + std::to_string(kPassOverhead) + " to " +
                   std::to_string(dense) + " cycles"};
}

Status check_placement(const ForwardQuery& query) {
  const Geometry& geometry = query.geometry;
  const Placement& place = query.placement;
  if (place.tile_mask == 0 || (place.tile_mask & ~geometry.all_tiles()) != 0) {
    return Error{ErrorCode::kInvalidArgument, "tile_mask is " + std::to_string(place.tile_mask) +
                                                  "; allowed are 1 to " +
                                                  std::to_string(geometry.all_tiles())};
  }
  if (std::uint64_t{place.first_word} + place.words > geometry.bank_a_words()) {
    return Error{ErrorCode::kPlacement, std::to_string(place.words) + " words from word " +
                                            std::to_string(place.first_word) + " on; Bank A has " +
                                            std::to_string(geometry.bank_a_words())};
  }
  const std::uint64_t resident =
      placement::resident_words(geometry, query.shape.outputs, query.shape.depth, place.tile_mask);
  if (!place.streamed && place.words != resident) {
    return Error{ErrorCode::kPlacement, "a resident layer of " + std::to_string(place.words) +
                                            " words; this one takes " + std::to_string(resident) +
                                            " in each tile"};
  }
  if (const std::uint32_t least = placement::min_window_words(geometry);
      place.streamed && place.words < least) {
    return Error{ErrorCode::kPlacement, "a window of " + std::to_string(place.words) +
                                            " words; the smallest is " + std::to_string(least)};
  }
  return {};
}

}  // namespace

Result<ForwardEstimate> estimate_forward(const ForwardQuery& query) {
  if (auto s = check_work(query); !s) return std::move(s).error();
  if (auto s = check_placement(query); !s) return std::move(s).error();
  const Schedule schedule(query.geometry, query.shape, query.placement);
  if (auto s = check_mean(query, schedule); !s) return std::move(s).error();
  if (query.samples == 0) return ForwardEstimate{};  // an empty batch does nothing
  const TimeLine time_line(schedule, query.samples);
  constexpr auto kOverhead = static_cast<double>(kPassOverhead);
  const double steps_per_depth = (query.cycles_per_job - kOverhead) *
                                 static_cast<double>(schedule.chunks()) /
                                 static_cast<double>(query.shape.depth);

  // Stages without a pass: their words are their cycles.
  std::uint64_t serial = time_line.serial_words();
  const bool load = !query.placement.streamed && !query.loaded;
  if (load) serial += time_line.load_words();
  double stages = 0.0;
  time_line.for_each_kind_of_pass([&](std::uint64_t p, std::uint64_t count) {
    double pass = 0.0;
    time_line.for_each_run(
        p, [&](std::uint64_t c, std::uint64_t first, std::uint64_t end, std::uint64_t words) {
          const double engine =
              kOverhead + steps_per_depth * static_cast<double>(schedule.chunk_depths(c));
          pass += std::max(engine, static_cast<double>(words)) * static_cast<double>(end - first);
        });
    stages += pass * static_cast<double>(count);
  });

  ForwardEstimate estimate;
  estimate.passes = schedule.passes();
  estimate.chunks = schedule.chunks();
  estimate.jobs = time_line.jobs();
  estimate.mem_reads = time_line.words_read() + (load ? time_line.load_words() : 0);
  estimate.mem_writes = time_line.words_written();
  estimate.dma_cycles = estimate.mem_reads + estimate.mem_writes;
  estimate.compute_cycles = static_cast<std::uint64_t>(
      std::llround(query.cycles_per_job * static_cast<double>(estimate.jobs)));
  estimate.cycles = serial + static_cast<std::uint64_t>(std::llround(stages));
  return estimate;
}

}  // namespace tfmbs::device
