#include "tfmbs/runtime/closed_form.hpp"

#include <algorithm>
#include <array>
#include <numeric>

#include "tfmbs/fabric/timing.hpp"
#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::runtime {
namespace {

constexpr std::uint64_t kOverhead = fabric::kStartCycles + fabric::kDrainCycles;

// Cycles and steps of every (sample, chunk) of one group, summed over the planes.
struct FieldCounts {
  std::vector<std::uint32_t> cycles;
  std::vector<std::uint32_t> steps;

  void resize(std::size_t size) {
    cycles.resize(size);
    steps.resize(size);
  }
};

// Memory that one thread keeps between forwards, so that a small layer's forward allocates nothing.
struct Scratch {
  FieldCounts full;                 // of groups whose every depth is occupied
  std::vector<FieldCounts> groups;  // of a pass's other groups
  FieldCounts plane;
  std::vector<std::uint32_t> column_counts;
  std::vector<std::uint64_t> middle_cycles;  // of a full pass, by chunk; 0: not computed yet
};

Scratch& scratch() {
  thread_local Scratch memory;
  return memory;
}

void count_fields(const Schedule& schedule, const ActivationPlanes& activations,
                  const std::uint64_t* occupancy, const Executor& executor, FieldCounts& plane,
                  FieldCounts& out) {
  const std::size_t chunks = schedule.chunks();
  const std::size_t size = activations.samples * chunks;
  out.resize(size);
  if (activations.planes > 1) plane.resize(size);
  for (std::uint32_t p = 0; p < activations.planes; ++p) {
    FieldCounts& target = p == 0 ? out : plane;
    const BitPlaneView rows = activations.plane(p);
    executor.parallel_for(
        activations.samples, 1 + (std::size_t{1} << 16) / std::max<std::size_t>(1, rows.trits),
        [&](std::size_t begin, std::size_t end) {
          kernels::active().field_count({.activations = rows.row(begin),
                                         .rows = end - begin,
                                         .trits = rows.trits,
                                         .occupancy = occupancy,
                                         .chunk_depth = schedule.chunk_depth(),
                                         .cycles = target.cycles.data() + begin * chunks,
                                         .steps = target.steps.data() + begin * chunks});
        });
    if (p == 0) continue;
    for (std::size_t i = 0; i < size; ++i) {
      out.cycles[i] += plane.cycles[i];
      out.steps[i] += plane.steps[i];
    }
  }
}

// DMA words beside job (p, c, m), as docs/fabric.md lists them, and the weights that cannot
// overlap.
struct JobTraffic {
  const Schedule& schedule;
  std::uint64_t samples;

  [[nodiscard]] std::uint64_t chunk_weights(std::uint64_t p, std::uint64_t c) const noexcept {
    return std::uint64_t{schedule.weight_words(c)} * schedule.pass_tiles(p);
  }
  [[nodiscard]] std::uint64_t beside(std::uint64_t p, std::uint64_t c,
                                     std::uint64_t m) const noexcept {
    std::uint64_t words = c > 0 ? schedule.pass_outputs(p) : 0;  // partial sums in
    if (m > 0 || c > 0) {
      words += schedule.pass_outputs(p);  // results of the job before, of the same pass
    } else if (p > 0) {
      words += schedule.pass_outputs(p - 1);
    }
    if (m + 1 < samples) return words + schedule.activation_words(c);
    std::uint64_t next_p = p;
    std::uint64_t next_c = c + 1;
    if (next_c == schedule.chunks()) {
      next_c = 0;
      if (++next_p == schedule.passes()) return words;
    }
    if (schedule.placement().streamed && schedule.ping_pong()) {
      words += chunk_weights(next_p, next_c);
    }
    return words + schedule.activation_words(next_c);
  }
};

std::uint64_t stage(std::uint64_t engine, std::uint64_t dma) noexcept {
  return std::max(engine, dma);
}

// Lane multiplications of each tile slot: the samples that are not zero at a depth times the
// weights that are not zero there.
void count_operations(const Schedule& schedule, const LaneStatistics& statistics,
                      const ActivationPlanes& activations, Scratch& memory, ForwardCounts& counts) {
  auto& columns = memory.column_counts;
  columns.assign(activations.depth, 0);
  for (std::uint32_t p = 0; p < activations.planes; ++p) {
    kernels::active().column_count({.activations = activations.plane(p).words,
                                    .rows = activations.samples,
                                    .trits = activations.depth,
                                    .counts = columns.data()});
  }
  const std::uint64_t dense_per_output =
      std::uint64_t{activations.planes} * activations.depth * activations.samples;
  const auto slots =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(schedule.tile_count(), schedule.groups()));
  std::array<std::uint64_t, Geometry::kMaxTiles> sums;
  kernels::active().weighted_sum({.values = columns.data(),
                                  .weights = statistics.nonzeros(),
                                  .rows = slots,
                                  .size = columns.size(),
                                  .sums = sums.data()});
  for (std::uint32_t slot = 0; slot < slots; ++slot) {
    const std::uint64_t active = sums[slot];
    std::uint64_t outputs = 0;
    for (std::uint64_t p = 0; p < schedule.passes() && slot < schedule.pass_tiles(p); ++p) {
      outputs += schedule.group(p, slot).lanes;
    }
    auto& tile = counts.tiles[schedule.tile(slot)];
    tile.active_ops += active;
    tile.zero_skips += outputs * dense_per_output - active;
    counts.total.active_ops += active;
    counts.total.zero_skips += outputs * dense_per_output - active;
  }
}

// Traffic that depends only on the shape.
void count_traffic(const Schedule& schedule, std::uint64_t samples, ForwardCounts& counts) {
  auto& total = counts.total;
  const std::uint64_t chunks = schedule.chunks();
  std::uint64_t sample_words = 0;  // activation words of one sample, all chunks
  for (std::uint64_t c = 0; c < chunks; ++c) sample_words += schedule.activation_words(c);
  const std::uint64_t tile_weights = schedule.shape().depth * schedule.geometry().words_per_depth();
  for (std::uint64_t p = 0; p < schedule.passes(); ++p) {
    const std::uint64_t activation_words = sample_words * samples;
    const std::uint64_t results = schedule.pass_outputs(p) * samples;
    total.broadcasts += activation_words;
    total.mem_reads += activation_words + results * (chunks - 1);
    total.mem_writes += results * chunks;
    for (std::uint32_t slot = 0; slot < schedule.pass_tiles(p); ++slot) {
      auto& tile = counts.tiles[schedule.tile(slot)];
      const std::uint64_t streamed = schedule.placement().streamed ? tile_weights : 0;
      tile.sram_reads += activation_words;
      tile.sram_writes += activation_words + streamed;
      total.sram_reads += activation_words;
      total.sram_writes += activation_words + streamed;
      total.mem_reads += streamed;
    }
  }
}

}  // namespace

void count_load(const Schedule& schedule, ForwardCounts& counts) {
  const std::uint64_t tile_weights = schedule.shape().depth * schedule.geometry().words_per_depth();
  std::uint64_t words = 0;
  for (std::uint64_t p = 0; p < schedule.passes(); ++p) {
    for (std::uint32_t slot = 0; slot < schedule.pass_tiles(p); ++slot) {
      counts.tiles[schedule.tile(slot)].sram_writes += tile_weights;
      words += tile_weights;
    }
  }
  counts.total.sram_writes += words;
  counts.total.mem_reads += words;
  counts.total.dma_cycles += words;
  counts.total.cycles += words;
  counts.total.dense_cycles += words;
}

void count_forward(const Schedule& schedule, const LaneStatistics& statistics,
                   const ActivationPlanes& activations, const Executor& executor,
                   ForwardCounts& counts) {
  Scratch& memory = scratch();
  const std::uint64_t samples = activations.samples;
  const std::uint64_t chunks = schedule.chunks();
  const std::uint64_t passes = schedule.passes();
  const std::uint32_t words_per_depth = schedule.geometry().words_per_depth();
  const JobTraffic traffic{schedule, samples};

  count_operations(schedule, statistics, activations, memory, counts);
  count_traffic(schedule, samples, counts);

  bool full_counted = false;
  std::array<const FieldCounts*, Geometry::kMaxTiles> pass_counts{};
  memory.middle_cycles.assign(chunks, 0);
  std::uint64_t full_steps = 0;
  std::uint64_t full_cycles = 0;
  auto& total = counts.total;

  for (std::uint64_t p = 0; p < passes; ++p) {
    const std::uint32_t tiles = schedule.pass_tiles(p);
    std::size_t own = 0;
    for (std::uint32_t slot = 0; slot < tiles; ++slot) {
      const std::uint64_t* occupancy = statistics.occupancy(p * schedule.tile_count() + slot);
      if (occupancy == nullptr) {
        if (!full_counted) {
          count_fields(schedule, activations, nullptr, executor, memory.plane, memory.full);
          full_counted = true;
          for (const auto cycles : memory.full.cycles) full_cycles += cycles;
          for (const auto steps : memory.full.steps) full_steps += steps;
        }
        pass_counts[slot] = &memory.full;
        continue;
      }
      if (memory.groups.size() < schedule.tile_count()) {
        memory.groups.resize(schedule.tile_count());
      }
      FieldCounts& group = memory.groups[own++];
      count_fields(schedule, activations, occupancy, executor, memory.plane, group);
      pass_counts[slot] = &group;
    }

    // The slowest tile of each job; where every depth is occupied the tiles are in step.
    const bool in_step = own == 0;
    const std::uint32_t* slowest = memory.full.cycles.data();
    if (!in_step) {
      auto& worst = memory.plane.cycles;
      worst.assign(samples * chunks, 0);
      for (std::uint32_t slot = 0; slot < tiles; ++slot) {
        for (std::size_t i = 0; i < worst.size(); ++i) {
          worst[i] = std::max(worst[i], pass_counts[slot]->cycles[i]);
        }
      }
      slowest = worst.data();
    }
    const std::uint64_t slowest_sum =
        in_step ? full_cycles
                : std::accumulate(slowest, slowest + samples * chunks, std::uint64_t{0});
    total.compute_cycles += slowest_sum + samples * chunks * kOverhead;

    for (std::uint32_t slot = 0; slot < tiles; ++slot) {
      std::uint64_t cycles = full_cycles;
      std::uint64_t steps = full_steps;
      if (pass_counts[slot] != &memory.full) {
        const FieldCounts& own_counts = *pass_counts[slot];
        cycles =
            std::accumulate(own_counts.cycles.begin(), own_counts.cycles.end(), std::uint64_t{0});
        steps = std::accumulate(own_counts.steps.begin(), own_counts.steps.end(), std::uint64_t{0});
      }
      const std::uint64_t reads = steps * words_per_depth;
      const std::uint64_t dense_reads =
          samples * activations.planes * activations.depth * words_per_depth;
      auto& tile = counts.tiles[schedule.tile(slot)];
      tile.compute_cycles += cycles + samples * chunks * kOverhead;
      tile.stall_cycles += slowest_sum - cycles;
      tile.sram_reads += reads;
      tile.sram_reads_saved += dense_reads - reads;
      total.sram_reads += reads;
      total.sram_reads_saved += dense_reads - reads;
    }

    for (std::uint64_t c = 0; c < chunks; ++c) {
      const std::uint64_t dense =
          kOverhead + std::uint64_t{schedule.shape().planes} * schedule.chunk_depths(c);
      const auto engine = [&](std::uint64_t m) { return kOverhead + slowest[m * chunks + c]; };
      const auto edge = [&](std::uint64_t m) {
        const std::uint64_t dma = traffic.beside(p, c, m);
        total.dma_cycles += dma;
        total.cycles += stage(engine(m), dma);
        total.dense_cycles += stage(dense, dma);
      };
      edge(0);
      if (samples > 2) {  // all but the first and last have the same traffic
        const std::uint64_t dma = traffic.beside(p, c, 1);
        total.dma_cycles += dma * (samples - 2);
        total.dense_cycles += stage(dense, dma) * (samples - 2);
        // Full passes in step differ in nothing here.
        const bool shared = in_step && tiles == schedule.tile_count() && p + 1 < passes;
        std::uint64_t middle = shared ? memory.middle_cycles[c] : 0;
        if (middle == 0) {
          for (std::uint64_t m = 1; m + 1 < samples; ++m) middle += stage(engine(m), dma);
          if (shared) memory.middle_cycles[c] = middle;
        }
        total.cycles += middle;
      }
      if (samples > 1) edge(samples - 1);
    }
  }

  // The stages without a pass: first, last, and single-slot weights.
  std::uint64_t serial = schedule.activation_words(0) + schedule.pass_outputs(passes - 1);
  if (schedule.placement().streamed) {
    serial += traffic.chunk_weights(0, 0);
    if (!schedule.ping_pong()) {
      for (std::uint64_t p = 0; p < passes; ++p) {
        for (std::uint64_t c = p == 0 ? 1 : 0; c < chunks; ++c)
          serial += traffic.chunk_weights(p, c);
      }
    }
  }
  total.cycles += serial;
  total.dense_cycles += serial;
  total.dma_cycles += serial;
}

}  // namespace tfmbs::runtime
