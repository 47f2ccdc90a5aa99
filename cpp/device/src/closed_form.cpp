#include "tfmbs/device/closed_form.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <mutex>
#include <numeric>
#include <span>
#include <utility>

#include "tfmbs/execution/workspace.hpp"
#include "tfmbs/kernels/kernels.hpp"
#include "tfmbs/kernels/saved_cycles.hpp"
#include "time_line.hpp"

namespace tfmbs::device {
namespace {

using execution::Executor;
using execution::Scratch;
using execution::SerialExecutor;

using SlotSums = std::array<std::uint64_t, Geometry::kMaxTiles>;
using LaneSums = std::array<std::uint64_t, kernels::kPassLanes>;

constexpr std::size_t kRowBlock = 16;  // rows whose fields are counted at a time, at most
static_assert(kRowBlock * kernels::kInt8Planes * kernels::fields_of(kMaxDepth) <
              kernels::kMaxTileFields);
static_assert(kernels::kInt8Planes * kMaxDepth < kernels::kMaxTileFields);  // groups of one depth

// Items of `trits` trits below which another thread costs more than it brings.
constexpr std::size_t grain(std::size_t trits) noexcept {
  return 1 + (std::size_t{1} << 18) / std::max<std::size_t>(trits, 1);
}

class ForwardCounter {
 public:
  ForwardCounter(const placement::Schedule& schedule, const LaneStatistics& statistics,
                 const QuantizedActivations& activations, const ActivationCounts& activation_counts,
                 const Executor& executor, ForwardCounts& counts) noexcept
      : schedule_(schedule),
        statistics_(statistics),
        activations_(activations.planes),
        values_(activations.values),
        activation_counts_(activation_counts),
        executor_(executor),
        counts_(counts),
        time_line_(schedule, activations.planes.samples),
        samples_(activations.planes.samples),
        chunks_(schedule.chunks()),
        passes_(schedule.passes()),
        slots_(schedule.pass_tiles(0)),
        sparse_passes_(statistics.sparse_passes().size()),
        full_passes_(passes_ - sparse_passes_),
        fields_(activations.planes.depth, schedule.shape().group_depth),
        chunk_fields_(fields_, schedule.chunk_depth()),
        row_block_(std::min<std::size_t>(
            kRowBlock,
            (kernels::kMaxTileFields - 1) / (activations.planes.planes * fields_.count()))) {
    std::fill_n(slot_cycles_.begin(), slots_, 0);
  }

  void run() {
    const auto& full = activation_counts_.cycles;
    full_cycles_ = std::accumulate(full.begin(), full.end(), std::uint64_t{0});
    size_lanes();
    count_time();
    count_lanes();
    count_traffic();
    count_cycles();
    count_operations();
  }

 private:
  // --- cycles of groups that are not full, a lane at a time

  // The DMA has the same words beside the first row's jobs, the last one's, and all between.
  static constexpr std::size_t kRuns = 3;
  [[nodiscard]] std::size_t run_of(std::uint64_t first, std::uint64_t end) const noexcept {
    return first == 0 ? 0 : end == samples_ ? 2 : 1;
  }
  [[nodiscard]] std::size_t run_begin(std::size_t run) const noexcept {
    return run == 0 ? 0 : run == 1 ? 1 : std::max<std::size_t>(samples_ - 1, 1);
  }

  void size_lanes() {
    const auto blocks = statistics_.blocks();
    if (blocks.empty()) return;
    places_ = blocks.back().first_place + blocks.back().lanes;
    floors_ = scratch_.take<std::uint32_t>(kRuns * places_ * chunks_);
    std::fill(floors_.begin(), floors_.end(), 0);
    slowest_ = scratch_.take<std::uint64_t>(sparse_passes_ + statistics_.lone_groups().size());
    std::fill(slowest_.begin(), slowest_.end(), 0);
  }
  [[nodiscard]] std::uint32_t* floors(std::size_t run, const LaneBlock& block) const noexcept {
    return floors_.data() + (run * places_ + block.first_place) * chunks_;
  }

  // The least that the engine can take, beside the DMA, in a stage of sparse passes
  // [first, end): what the stage lasts is then a maximum.
  void set_floor(std::size_t first, std::size_t end, std::size_t run, std::uint64_t chunk,
                 std::uint64_t dma) const noexcept {
    if (dma <= kPassOverhead) return;
    for (const LaneBlock& block : statistics_.blocks()) {
      const std::size_t from = std::max(first, block.first);
      const std::size_t to = std::min(end, block.first + block.used);
      if (from >= to) continue;
      std::uint32_t* row = floors(run, block) + chunk * block.lanes;
      std::fill(row + (from - block.first), row + (to - block.first),
                static_cast<std::uint32_t>(dma - kPassOverhead));
    }
  }

  void count_lanes() {
    if (statistics_.all_occupied()) return;
    if (statistics_.nearly_full()) return count_nearly_full();
    const std::size_t row_blocks = (samples_ + row_block_ - 1) / row_block_;
    const auto count_row_blocks = [this](std::size_t begin, std::size_t end,
                                         const Executor& executor) {
      for (std::size_t b = begin; b < end; ++b) {
        count_rows(b * row_block_, std::min<std::size_t>((b + 1) * row_block_, samples_), executor);
      }
    };
    // Threads share the rows, or where there are few, the blocks of lanes.
    if (row_blocks >= executor_.threads()) {
      executor_.parallel_for(row_blocks, grain(row_block_ * row_trits()),
                             [&](std::size_t begin, std::size_t end) {
                               count_row_blocks(begin, end, SerialExecutor{});
                             });
    } else {
      count_row_blocks(0, row_blocks, executor_);
    }
  }

  // Trits of a row against a wide block.
  [[nodiscard]] std::size_t row_trits() const noexcept {
    return activations_.depth * activations_.planes * slots_;
  }

  void count_rows(std::size_t begin, std::size_t end, const Executor& executor) {
    const auto blocks = statistics_.blocks();
    Scratch scratch;
    std::array<std::span<std::uint16_t>, 6> fields;  // by the logarithm of a block's lanes
    std::uint32_t packed = 0;
    for (const LaneBlock& block : blocks) {
      if ((packed & block.lanes) != 0) continue;
      packed |= block.lanes;
      fields[log2_lanes(block)] = pack_fields(begin, end, block.lanes, scratch);
    }
    executor.parallel_for(blocks.size(), grain((end - begin) * row_trits()),
                          [&](std::size_t first, std::size_t last) {
                            for (std::size_t b = first; b < last; ++b) {
                              count_block(blocks[b], begin, end,
                                          fields[log2_lanes(blocks[b])].data());
                            }
                          });
  }

  [[nodiscard]] static std::size_t log2_lanes(const LaneBlock& block) noexcept {
    return std::min<std::size_t>(static_cast<std::size_t>(std::countr_zero(block.lanes)), 5);
  }

  [[nodiscard]] std::span<std::uint16_t> pack_fields(std::size_t begin, std::size_t end,
                                                     std::size_t lanes, Scratch& scratch) const {
    const std::size_t copies = kernels::field_copies(lanes);
    const std::size_t plane_fields = fields_.count() * copies;
    const std::size_t row_fields = plane_fields * activations_.planes;
    const auto fields = scratch.take<std::uint16_t>((end - begin) * row_fields);
    for (std::uint32_t p = 0; p < activations_.planes; ++p) {
      if (fields_.grouped()) {
        pack_group_fields(activations_.plane(p).slice(begin, end - begin), copies,
                          fields.data() + p * plane_fields, row_fields);
        continue;
      }
      kernels::active().pack_fields({.activations = activations_.plane(p).row(begin),
                                     .rows = end - begin,
                                     .trits = activations_.depth,
                                     .copies = copies,
                                     .fields = fields.data() + p * plane_fields,
                                     .row_stride = row_fields});
    }
    return fields;
  }

  // As kernels::pack_fields, where fields begin anew at each scale group.
  void pack_group_fields(BitPlaneView rows, std::size_t copies, std::uint16_t* fields,
                         std::size_t row_stride) const noexcept {
    for (std::size_t r = 0; r < rows.rows; ++r) {
      const std::uint64_t* row = rows.row(r);
      std::uint16_t* out = fields + r * row_stride;
      fields_.for_each([&](std::size_t /*field*/, std::size_t first, std::size_t depths) {
        out = std::fill_n(out, copies, DepthFields::bits(row, first, depths));
      });
    }
  }

  // `fields` begin with row `begin`.
  void count_block(const LaneBlock& block, std::size_t begin, std::size_t end,
                   const std::uint16_t* fields) {
    const bool passes = block.first < sparse_passes_;
    const std::size_t row_fields =
        fields_.count() * kernels::field_copies(block.lanes) * activations_.planes;
    SlotSums slots;
    std::fill_n(slots.begin(), block.slots, 0);
    LaneSums slowest{};
    LaneSums stages{};
    for (std::size_t run = 0; run < kRuns; ++run) {
      const std::size_t first = std::max(begin, run_begin(run));
      const std::size_t last = run + 1 == kRuns ? end : std::min(end, run_begin(run + 1));
      if (first >= last || first >= samples_) continue;
      const kernels::TileCyclesArgs args{.fields = fields + (first - begin) * row_fields,
                                         .rows = last - first,
                                         .planes = activations_.planes,
                                         .field_count = fields_.count(),
                                         .chunk_fields = chunk_fields_.largest(),
                                         .occupancy = statistics_.occupancy(block),
                                         .slots = block.slots,
                                         .lanes = block.lanes,
                                         .floors = passes ? floors(run, block) : nullptr,
                                         .slot_cycles = slots.data(),
                                         .slowest = slowest.data(),
                                         .stages = stages.data()};
      if (chunk_fields_.uniform()) {
        kernels::active().tile_cycles(args);
      } else {
        count_chunks(args);
      }
    }
    const std::scoped_lock lock(mutex_);
    for (std::size_t i = 0; i < block.used; ++i) {
      slowest_[block.first + i] += slowest[i];
      stage_cycles_ += stages[i];
    }
    if (!passes) return;
    for (std::size_t slot = 0; slot < block.slots; ++slot) slot_cycles_[slot] += slots[slot];
  }

  // The same for chunks that are not alike, as where a bank holds no whole number of a scale
  // group's chunks: a chunk at a time, of fields that are copied together.
  void count_chunks(const kernels::TileCyclesArgs& all) const {
    Scratch scratch;
    const std::size_t copies = kernels::field_copies(all.lanes);
    const std::size_t rows = all.rows * all.planes;
    const auto fields = scratch.take<std::uint16_t>(rows * chunk_fields_.largest() * copies);
    const auto occupancy =
        scratch.take<std::uint16_t>(all.slots * chunk_fields_.largest() * all.lanes);
    const auto gather = [&](const std::uint16_t* from, std::size_t count, std::size_t width,
                            std::size_t chunk, std::uint16_t* to) {
      const std::size_t begin = chunk_fields_.begin(chunk) * width;
      const std::size_t end = chunk_fields_.end(chunk) * width;
      for (std::size_t i = 0; i < count; ++i, from += all.field_count * width) {
        to = std::copy(from + begin, from + end, to);
      }
    };
    for (std::size_t c = 0; c < chunks_; ++c) {
      gather(all.fields, rows, copies, c, fields.data());
      gather(all.occupancy, all.slots, all.lanes, c, occupancy.data());
      kernels::TileCyclesArgs args = all;
      args.fields = fields.data();
      args.field_count = chunk_fields_.end(c) - chunk_fields_.begin(c);
      args.chunk_fields = args.field_count;
      args.occupancy = occupancy.data();
      if (all.floors != nullptr) args.floors = all.floors + c * all.lanes;
      kernels::active().tile_cycles(args);
    }
  }

  // --- cycles of nearly full layers, from what their groups save beside full ones

  void count_nearly_full() {
    const std::size_t trits = statistics_.partly_empty_fields() * kernels::kFieldTrits;
    executor_.parallel_for(samples_, grain(trits), [this](std::size_t begin, std::size_t end) {
      Scratch scratch;
      const auto slowest = scratch.take<std::uint64_t>(slowest_.size());
      std::fill(slowest.begin(), slowest.end(), 0);
      SlotSums slots;
      std::fill_n(slots.begin(), slots_, 0);
      std::uint64_t stages = 0;
      for (const LaneBlock& block : statistics_.blocks()) {
        for (std::size_t m = begin; m < end; ++m) {
          count_sample(block, m, slots, slowest[block.first], stages);
        }
      }
      const std::scoped_lock lock(mutex_);
      for (std::size_t i = 0; i < slowest.size(); ++i) slowest_[i] += slowest[i];
      for (std::uint32_t slot = 0; slot < slots_; ++slot) slot_cycles_[slot] += slots[slot];
      stage_cycles_ += stages;
    });
  }

  // A lone group's cycles are added to its slot later, with those of other layers.
  void count_sample(const LaneBlock& block, std::uint64_t sample, SlotSums& slots,
                    std::uint64_t& slowest, std::uint64_t& stages) const noexcept {
    const bool pass = block.first < sparse_passes_;
    const std::uint32_t* floor = pass ? floors(run_of(sample, sample + 1), block) : nullptr;
    std::array<std::size_t, Geometry::kMaxTiles> done;  // fields of earlier chunks
    std::fill_n(done.begin(), block.slots, 0);
    for (std::uint64_t c = 0; c < chunks_; ++c) {
      const std::uint32_t full = activation_counts_.cycles[sample * chunks_ + c];
      const std::size_t chunk_end = chunk_fields_.end(c);
      std::uint32_t most = 0;
      for (std::uint32_t slot = 0; slot < block.slots; ++slot) {
        const auto fields = statistics_.partly_empty(block, slot);
        std::size_t end = done[slot];
        while (end < fields.size() && fields[end].field < chunk_end) ++end;
        const std::uint32_t cycles =
            full - saved_cycles(sample, fields.subspan(done[slot], end - done[slot]));
        done[slot] = end;
        if (pass) slots[slot] += cycles;
        most = std::max(most, cycles);
      }
      slowest += most;
      if (pass) stages += std::max(most, floor[c]);
    }
  }

  [[nodiscard]] std::uint32_t saved_cycles(
      std::uint64_t sample, std::span<const kernels::PartlyEmptyField> fields) const noexcept {
    const std::size_t depth = activations_.depth;
    if (fields_.grouped()) return saved_group_cycles(sample, fields);
    if (values_ != nullptr) return kernels::saved_cycles(values_ + sample * depth, depth, fields);
    return kernels::saved_cycles(activations_.plane(0).row(sample), depth, fields);
  }

  [[nodiscard]] std::uint32_t saved_group_cycles(
      std::uint64_t sample, std::span<const kernels::PartlyEmptyField> fields) const noexcept {
    std::uint32_t saved = 0;
    for (const auto& [field, empty] : fields) {
      const std::size_t begin = fields_.begin(field);
      const std::size_t depths = fields_.depths(field);
      if (values_ != nullptr) {
        const kernels::PartlyEmptyField alone{0, empty};
        saved += kernels::saved_cycles(values_ + sample * activations_.depth + begin, depths,
                                       {&alone, 1});
        continue;
      }
      const unsigned all = DepthFields::bits(activations_.plane(0).row(sample), begin, depths);
      saved += static_cast<std::uint32_t>(std::max(1, std::popcount(all)) -
                                          std::max(1, std::popcount(all & ~unsigned{empty})));
    }
    return saved;
  }

  // --- the time line

  void count_time() {
    auto& total = counts_.total;
    const auto sparse = statistics_.sparse_passes();
    time_line_.for_each_kind_of_pass([&](std::uint64_t p, std::uint64_t count) {
      const auto first = std::lower_bound(sparse.begin(), sparse.end(), p);
      const auto end = std::lower_bound(first, sparse.end(), p + count);
      const auto first_lane = static_cast<std::size_t>(first - sparse.begin());
      const auto end_lane = static_cast<std::size_t>(end - sparse.begin());
      const std::uint64_t full = count - (end_lane - first_lane);
      time_line_.for_each_run(p, [&](std::uint64_t c, std::uint64_t begin_row,
                                     std::uint64_t end_row, std::uint64_t dma) {
        const std::uint64_t dense =
            kPassOverhead + std::uint64_t{schedule_.shape().planes} * schedule_.chunk_depths(c);
        total.dma_cycles += dma * (end_row - begin_row) * count;
        total.dense_cycles += std::max(dense, dma) * (end_row - begin_row) * count;
        if (end_lane != first_lane) {
          set_floor(first_lane, end_lane, run_of(begin_row, end_row), c, dma);
        }
        if (full == 0) return;
        std::uint64_t cycles = 0;
        for (std::uint64_t m = begin_row; m < end_row; ++m) {
          cycles += std::max(kPassOverhead + activation_counts_.cycles[m * chunks_ + c], dma);
        }
        total.cycles += cycles * full;
      });
    });
    const std::uint64_t serial = time_line_.serial_words();
    total.cycles += serial;
    total.dense_cycles += serial;
    total.dma_cycles += serial;
  }

  void count_cycles() {
    const auto lanes = std::span<const std::uint64_t>(slowest_).first(sparse_passes_);
    const std::uint64_t slowest =
        full_passes_ * full_cycles_ + std::accumulate(lanes.begin(), lanes.end(), std::uint64_t{0});
    const bool last_is_sparse =
        sparse_passes_ != 0 && statistics_.sparse_passes().back() == passes_ - 1;
    const std::uint64_t last_slowest = last_is_sparse ? lanes.back() : full_cycles_;
    const std::uint64_t overhead = samples_ * chunks_ * kPassOverhead;  // of a pass
    counts_.total.cycles += stage_cycles_ + overhead * sparse_passes_;
    counts_.total.compute_cycles += slowest + overhead * passes_;

    // tile_cycles counts a cycle a field for lanes without use, and for the tiles that the last
    // pass leaves idle.
    const std::uint64_t idle_lane =
        statistics_.nearly_full() ? 0 : samples_ * activations_.planes * fields_.count();
    std::uint64_t unused = 0;
    for (const LaneBlock& block : statistics_.blocks()) {
      if (block.first < sparse_passes_) unused += block.lanes - block.used;
    }
    const auto groups = statistics_.lone_groups();
    for (std::size_t i = 0; i < groups.size(); ++i) {
      slot_cycles_[groups[i] % schedule_.tile_count()] += slowest_[sparse_passes_ + i];
    }
    for (std::uint32_t slot = 0; slot < slots_; ++slot) {
      const bool idle = schedule_.slot_passes(slot) != passes_;
      const std::uint64_t cycles = slot_cycles_[slot] +
                                   statistics_.full_groups(slot) * full_cycles_ -
                                   idle_lane * (unused + (idle && last_is_sparse ? 1 : 0));
      auto& tile = counts_.tiles[schedule_.tile(slot)];
      tile.compute_cycles += cycles + overhead * schedule_.slot_passes(slot);
      tile.stall_cycles += slowest - (idle ? last_slowest : 0) - cycles;
    }
  }

  // --- traffic and operations

  // What depends only on the shape.
  void count_traffic() {
    auto& total = counts_.total;
    const std::uint64_t activation_words = time_line_.pass_activation_words();
    const std::uint64_t streamed = time_line_.streamed_pass_words();
    total.broadcasts += activation_words * passes_;
    total.mem_reads += time_line_.words_read();
    total.mem_writes += time_line_.words_written();
    for (std::uint32_t slot = 0; slot < slots_; ++slot) {
      const std::uint64_t passes = schedule_.slot_passes(slot);
      auto& tile = counts_.tiles[schedule_.tile(slot)];
      tile.sram_reads += activation_words * passes;
      tile.sram_writes += (activation_words + streamed) * passes;
      total.sram_reads += activation_words * passes;
      total.sram_writes += (activation_words + streamed) * passes;
    }
  }

  // Both are sums over the depths: the samples that are not zero there times the weights that are
  // not (lane multiplications), or times the groups that are occupied (steps).
  void count_operations() {
    const std::uint64_t per_output =
        std::uint64_t{activations_.planes} * activations_.depth * samples_;
    const std::uint64_t words_per_depth = schedule_.geometry().words_per_depth();
    const std::uint64_t full_rows = activation_counts_.full_rows;
    SlotSums active;
    SlotSums steps;
    for (std::uint32_t slot = 0; slot < slots_; ++slot) {
      active[slot] = full_rows * statistics_.slot_nonzeros(slot);
      steps[slot] = activation_counts_.nonzeros * schedule_.slot_passes(slot);  // if it is full
    }
    const auto unfull = statistics_.unfull_slots();
    for (const std::uint32_t slot : unfull) {
      steps[slot] = full_rows * statistics_.slot_occupied(slot);
    }
    if (full_rows != samples_ * activations_.planes) {
      SlotSums sums;
      weigh_columns(statistics_.nonzeros(), slots_, sums);
      for (std::uint32_t slot = 0; slot < slots_; ++slot) active[slot] += sums[slot];
      weigh_columns(statistics_.occupied(), unfull.size(), sums);
      for (std::size_t i = 0; i < unfull.size(); ++i) steps[unfull[i]] += sums[i];
    }
    auto& total = counts_.total;
    for (std::uint32_t slot = 0; slot < slots_; ++slot) {
      const std::uint64_t passes = schedule_.slot_passes(slot);
      const std::uint64_t reads = steps[slot] * words_per_depth;
      const std::uint64_t saved = (per_output * passes - steps[slot]) * words_per_depth;
      const std::uint64_t skipped = schedule_.slot_outputs(slot) * per_output - active[slot];
      auto& tile = counts_.tiles[schedule_.tile(slot)];
      tile.active_ops += active[slot];
      tile.zero_skips += skipped;
      tile.sram_reads += reads;
      tile.sram_reads_saved += saved;
      total.active_ops += active[slot];
      total.zero_skips += skipped;
      total.sram_reads += reads;
      total.sram_reads_saved += saved;
    }
  }

  void weigh_columns(const SlotCounts& weights, std::size_t rows, SlotSums& sums) const {
    if (rows == 0) return;
    weigh_columns(weights.low(), rows, sums);
    if (weights.high().empty()) return;
    SlotSums high;
    weigh_columns(weights.high(), rows, high);
    for (std::size_t row = 0; row < rows; ++row) sums[row] += high[row] << 16;
  }
  void weigh_columns(std::span<const std::uint16_t> weights, std::size_t rows,
                     SlotSums& sums) const {
    kernels::active().weighted_sum({.values = activation_counts_.columns.data(),
                                    .weights = weights.data(),
                                    .rows = rows,
                                    .size = activations_.depth,
                                    .sums = sums.data()});
  }

  const placement::Schedule& schedule_;
  const LaneStatistics& statistics_;
  const ActivationPlanes& activations_;  // without words, if request_for() did not ask for planes
  const std::int8_t* values_;            // of int8 activations
  const ActivationCounts& activation_counts_;
  const Executor& executor_;
  ForwardCounts& counts_;
  Scratch scratch_;
  std::span<std::uint32_t> floors_;
  std::span<std::uint64_t> slowest_;
  TimeLine time_line_;
  std::uint64_t samples_;
  std::uint64_t chunks_;
  std::uint64_t passes_;
  std::uint32_t slots_;
  std::size_t sparse_passes_;
  std::uint64_t full_passes_;
  DepthFields fields_;
  ChunkFields chunk_fields_;
  std::size_t row_block_;
  std::uint64_t full_cycles_{0};  // over all samples and chunks
  std::size_t places_{0};
  std::mutex mutex_;               // of the sums that threads share:
  std::uint64_t stage_cycles_{0};  // of sparse passes, without kPassOverhead
  SlotSums slot_cycles_;           // of groups that are not full; slots_ of them
};

}  // namespace

void count_load(const placement::Schedule& schedule, ForwardCounts& counts) noexcept {
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

ActivationNeeds needs_of(const placement::Schedule& schedule,
                         const LaneStatistics& statistics) noexcept {
  const bool full_pass = statistics.sparse_passes().size() != schedule.passes();
  const bool full_cycles = full_pass || statistics.nearly_full();
  return {.planes = !statistics.all_occupied() && !statistics.nearly_full(),
          .counts = true,
          .chunk_depth = full_cycles ? schedule.chunk_depth() : 0,
          .group_depth = schedule.shape().group_depth};
}

void count_forward(const placement::Schedule& schedule, const LaneStatistics& statistics,
                   const QuantizedActivations& activations,
                   const ActivationCounts& activation_counts, const Executor& executor,
                   ForwardCounts& counts) {
  ForwardCounter(schedule, statistics, activations, activation_counts, executor, counts).run();
}

}  // namespace tfmbs::device
