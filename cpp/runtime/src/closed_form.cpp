#include "tfmbs/runtime/closed_form.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <span>

#include "tfmbs/kernels/kernels.hpp"
#include "time_line.hpp"

namespace tfmbs::runtime {
namespace {

// Cycles of every (sample, chunk) of one group, summed over the planes; and totals.
struct FieldCounts {
  std::vector<std::uint32_t> cycles;
  std::uint64_t cycle_sum{0};
  std::uint64_t step_sum{0};
};

// Memory that one thread keeps between forwards, so that a small layer's forward allocates nothing.
struct Scratch {
  FieldCounts full;                 // of groups whose every depth is occupied
  std::vector<FieldCounts> groups;  // of a pass's other groups
  std::vector<std::uint32_t> plane_cycles;
  std::vector<std::uint32_t> plane_steps;
  std::vector<std::uint32_t> slowest;  // of a pass, by (sample, chunk)
  std::vector<std::uint32_t> column_counts;
};

Scratch& scratch() {
  thread_local Scratch memory;
  return memory;
}

// Time of the stages that run one pass's jobs.
struct PassTime {
  std::uint64_t cycles{0};
  std::uint64_t dense{0};
  std::uint64_t dma{0};
};

class ForwardCounter {
 public:
  ForwardCounter(const placement::Schedule& schedule, const LaneStatistics& statistics,
                 const ActivationPlanes& activations, const Executor& executor,
                 ForwardCounts& counts) noexcept
      : schedule_(schedule),
        statistics_(statistics),
        activations_(activations),
        executor_(executor),
        counts_(counts),
        memory_(scratch()),
        time_line_(schedule, activations.samples),
        samples_(activations.samples),
        chunks_(schedule.chunks()),
        passes_(schedule.passes()) {}

  void run() {
    count_traffic();
    for (std::uint64_t p = 0; p < passes_; ++p) count_pass(p);
    count_operations();
    count_serial_stages();
  }

 private:
  // Lane multiplications of each tile slot: the samples that are not zero at a depth times the
  // weights that are not zero there.
  void count_operations() {
    const std::uint32_t slots = schedule_.pass_tiles(0);
    const std::uint64_t per_output =
        std::uint64_t{activations_.planes} * activations_.depth * samples_;
    std::array<std::uint64_t, Geometry::kMaxTiles> active;
    if (full_counted_ && memory_.full.step_sum == per_output) {  // no activation is zero
      for (std::uint32_t slot = 0; slot < slots; ++slot) {
        active[slot] = statistics_.slot_nonzeros(slot) * activations_.planes * samples_;
      }
    } else {
      weigh_columns(slots, active);
    }
    for (std::uint32_t slot = 0; slot < slots; ++slot) {
      const std::uint64_t skipped = schedule_.slot_outputs(slot) * per_output - active[slot];
      auto& tile = counts_.tiles[schedule_.tile(slot)];
      tile.active_ops += active[slot];
      tile.zero_skips += skipped;
      counts_.total.active_ops += active[slot];
      counts_.total.zero_skips += skipped;
    }
  }

  void weigh_columns(std::uint32_t slots, std::span<std::uint64_t> active) {
    auto& columns = memory_.column_counts;
    columns.assign(activations_.depth, 0);
    for (std::uint32_t p = 0; p < activations_.planes; ++p) {
      kernels::active().column_count({.activations = activations_.plane(p).words,
                                      .rows = samples_,
                                      .trits = activations_.depth,
                                      .counts = columns.data()});
    }
    kernels::active().weighted_sum({.values = columns.data(),
                                    .weights = statistics_.nonzeros(),
                                    .rows = slots,
                                    .size = columns.size(),
                                    .sums = active.data()});
  }

  // Traffic that depends only on the shape.
  void count_traffic() {
    auto& total = counts_.total;
    const std::uint64_t activation_words = time_line_.pass_activation_words();
    const std::uint64_t streamed = time_line_.streamed_pass_words();
    total.broadcasts += activation_words * passes_;
    total.mem_reads += time_line_.words_read();
    total.mem_writes += time_line_.words_written();
    for (std::uint32_t slot = 0; slot < schedule_.pass_tiles(0); ++slot) {
      const std::uint64_t passes = schedule_.slot_passes(slot);
      auto& tile = counts_.tiles[schedule_.tile(slot)];
      tile.sram_reads += activation_words * passes;
      tile.sram_writes += (activation_words + streamed) * passes;
      total.sram_reads += activation_words * passes;
      total.sram_writes += (activation_words + streamed) * passes;
    }
  }

  void count_pass(std::uint64_t p) {
    const std::uint32_t tiles = schedule_.pass_tiles(p);
    std::array<const FieldCounts*, Geometry::kMaxTiles> groups;
    std::array<const std::uint64_t*, Geometry::kMaxTiles> own_occupancy;
    std::size_t own = 0;
    if (memory_.groups.size() < tiles) memory_.groups.resize(tiles);
    for (std::uint32_t slot = 0; slot < tiles; ++slot) {
      const std::uint64_t* occupancy = statistics_.occupancy(p * schedule_.tile_count() + slot);
      if (occupancy == nullptr) {
        groups[slot] = &full_counts();
      } else {
        own_occupancy[own] = occupancy;
        groups[slot] = &memory_.groups[own++];
      }
    }
    // One thread a group; a group's samples stay together.
    executor_.parallel_for(own, group_grain(), [&](std::size_t begin, std::size_t end) {
      for (std::size_t g = begin; g < end; ++g) {
        count_fields(own_occupancy[g], SerialExecutor{}, memory_.groups[g]);
      }
    });
    // Where every depth is occupied the tiles are in step; else the slowest sets the pace.
    const bool in_step = own == 0;
    const std::uint32_t* slowest = memory_.full.cycles.data();
    std::uint64_t slowest_sum = memory_.full.cycle_sum;
    if (!in_step) {
      auto& worst = memory_.slowest;
      worst.assign(samples_ * chunks_, 0);
      for (std::uint32_t slot = 0; slot < tiles; ++slot) {
        for (std::size_t i = 0; i < worst.size(); ++i) {
          worst[i] = std::max(worst[i], groups[slot]->cycles[i]);
        }
      }
      slowest = worst.data();
      slowest_sum = std::accumulate(worst.begin(), worst.end(), std::uint64_t{0});
    }

    auto& total = counts_.total;
    const std::uint64_t overhead = samples_ * chunks_ * kPassOverhead;
    const std::uint64_t words_per_depth = schedule_.geometry().words_per_depth();
    const std::uint64_t dense_steps = samples_ * activations_.planes * activations_.depth;
    total.compute_cycles += slowest_sum + overhead;
    for (std::uint32_t slot = 0; slot < tiles; ++slot) {
      const std::uint64_t reads = groups[slot]->step_sum * words_per_depth;
      const std::uint64_t saved = (dense_steps - groups[slot]->step_sum) * words_per_depth;
      auto& tile = counts_.tiles[schedule_.tile(slot)];
      tile.compute_cycles += groups[slot]->cycle_sum + overhead;
      tile.stall_cycles += slowest_sum - groups[slot]->cycle_sum;
      tile.sram_reads += reads;
      tile.sram_reads_saved += saved;
      total.sram_reads += reads;
      total.sram_reads_saved += saved;
    }

    // A full pass in step between full passes takes what the last such pass took.
    const bool interior = in_step && time_line_.is_interior(p);
    PassTime time;
    if (interior && interior_time_) {
      time = *interior_time_;
    } else {
      time = time_pass(p, slowest);
      if (interior) interior_time_ = time;
    }
    total.cycles += time.cycles;
    total.dense_cycles += time.dense;
    total.dma_cycles += time.dma;
  }

  [[nodiscard]] PassTime time_pass(std::uint64_t p, const std::uint32_t* slowest) const noexcept {
    PassTime time;
    time_line_.for_each_run(
        p, [&](std::uint64_t c, std::uint64_t first, std::uint64_t end, std::uint64_t dma) {
          const std::uint64_t dense =
              kPassOverhead + std::uint64_t{schedule_.shape().planes} * schedule_.chunk_depths(c);
          time.dma += dma * (end - first);
          time.dense += std::max(dense, dma) * (end - first);
          for (std::uint64_t m = first; m < end; ++m) {
            time.cycles += std::max(kPassOverhead + slowest[m * chunks_ + c], dma);
          }
        });
    return time;
  }

  void count_serial_stages() {
    const std::uint64_t words = time_line_.serial_words();
    counts_.total.cycles += words;
    counts_.total.dense_cycles += words;
    counts_.total.dma_cycles += words;
  }

  const FieldCounts& full_counts() {
    if (!full_counted_) count_fields(nullptr, executor_, memory_.full);
    full_counted_ = true;
    return memory_.full;
  }

  // Trits below which another thread costs more than it brings.
  static constexpr std::size_t kGrainTrits = std::size_t{1} << 18;
  [[nodiscard]] std::size_t group_grain() const noexcept {
    return 1 + kGrainTrits / (samples_ * activations_.depth * activations_.planes);
  }

  void count_fields(const std::uint64_t* occupancy, const Executor& executor,
                    FieldCounts& out) const {
    const std::size_t size = samples_ * chunks_;
    Scratch& memory = scratch();  // this thread's
    memory.plane_cycles.resize(size);
    memory.plane_steps.resize(size);
    out.cycles.resize(size);
    out.step_sum = 0;
    for (std::uint32_t p = 0; p < activations_.planes; ++p) {
      // The first plane's counts are written in place; the others' are added to them.
      std::uint32_t* cycles = p == 0 ? out.cycles.data() : memory.plane_cycles.data();
      std::uint32_t* steps = memory.plane_steps.data();
      const BitPlaneView rows = activations_.plane(p);
      executor.parallel_for(samples_, 1 + kGrainTrits / rows.trits,
                            [&](std::size_t begin, std::size_t end) {
                              kernels::active().field_count({.activations = rows.row(begin),
                                                             .rows = end - begin,
                                                             .trits = rows.trits,
                                                             .occupancy = occupancy,
                                                             .chunk_depth = schedule_.chunk_depth(),
                                                             .cycles = cycles + begin * chunks_,
                                                             .steps = steps + begin * chunks_});
                            });
      out.step_sum += std::accumulate(steps, steps + size, std::uint64_t{0});
      if (p == 0) continue;
      for (std::size_t i = 0; i < size; ++i) out.cycles[i] += cycles[i];
    }
    out.cycle_sum = std::accumulate(out.cycles.begin(), out.cycles.end(), std::uint64_t{0});
  }

  const placement::Schedule& schedule_;
  const LaneStatistics& statistics_;
  const ActivationPlanes& activations_;
  const Executor& executor_;
  ForwardCounts& counts_;
  Scratch& memory_;
  TimeLine time_line_;
  std::uint64_t samples_;
  std::uint64_t chunks_;
  std::uint64_t passes_;
  bool full_counted_{false};
  std::optional<PassTime> interior_time_;
};

}  // namespace

void count_load(const placement::Schedule& schedule, ForwardCounts& counts) {
  for (std::uint32_t slot = 0; slot < schedule.pass_tiles(0); ++slot) {
    counts.tiles[schedule.tile(slot)].sram_writes +=
        schedule.slot_passes(slot) * schedule.tile_pass_words();
  }
  const std::uint64_t words = TimeLine(schedule, 1).load_words();
  counts.total.sram_writes += words;
  counts.total.mem_reads += words;
  counts.total.dma_cycles += words;
  counts.total.cycles += words;
  counts.total.dense_cycles += words;
}

void count_forward(const placement::Schedule& schedule, const LaneStatistics& statistics,
                   const ActivationPlanes& activations, const Executor& executor,
                   ForwardCounts& counts) {
  ForwardCounter(schedule, statistics, activations, executor, counts).run();
}

}  // namespace tfmbs::runtime
