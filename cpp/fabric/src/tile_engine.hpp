// The engine of one tile in one pass, a cycle a call (docs/fabric.md, "Engine").
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tfmbs/fabric/counters.hpp"
#include "tfmbs/fabric/task_descriptor.hpp"
#include "tfmbs/fabric/timing.hpp"
#include "tfmbs/format/geometry.hpp"
#include "tfmbs/format/pt5.hpp"
#include "tile.hpp"

namespace tfmbs::fabric {

// What every tile of a pass shares: the descriptor, decoded.
struct Pass {
  Pass(const TaskDescriptor& descriptor, const Geometry& geometry)
      : task(&descriptor),
        first_weight(descriptor.weight_base / kBytesPerWord),
        first_activation(descriptor.activation_base / kBytesPerWord),
        lanes_of_word(geometry.words_per_depth()) {
    for (std::size_t lane = 0; lane < descriptor.lanes; ++lane) {
      if (runs(lane)) {
        lanes_of_word[lane / kTritsPerWord] |=
            static_cast<std::uint16_t>(1U << (lane % kTritsPerWord));
        ++lanes;
      }
    }
  }

  [[nodiscard]] bool runs(std::size_t lane) const noexcept {
    const auto& mask = task->lane_mask;
    return mask.empty() || (lane / 64 < mask.size() && (mask[lane / 64] >> (lane % 64) & 1) != 0);
  }

  const TaskDescriptor* task;
  std::size_t first_weight;      // word in Bank A
  std::size_t first_activation;  // word in Bank B
  // The lanes that run, 15 a weight word. All words of a depth are read, whatever lanes run.
  std::vector<std::uint16_t> lanes_of_word;
  std::uint64_t lanes{0};  // how many run
};

class TileEngine {
 public:
  TileEngine(const Pass& pass, TileState& tile, std::uint32_t tile_index)
      : pass_(&pass), tile_(&tile), tile_index_(tile_index) {}

  void start() noexcept { std::fill(tile_->accumulators.begin(), tile_->accumulators.end(), 0U); }

  [[nodiscard]] bool busy() const noexcept { return phase_ != Phase::kDone; }
  [[nodiscard]] std::uint32_t tile_index() const noexcept { return tile_index_; }
  [[nodiscard]] const TileCounters& counts() const noexcept { return counts_; }

  void tick() noexcept {
    ++counts_.compute_cycles;
    switch (phase_) {
      case Phase::kStart:
        if (++waited_ == kStartCycles) {
          enter(Phase::kStep);
        }
        break;
      case Phase::kStep:
        step();
        break;
      case Phase::kDrain:
        if (++waited_ == kDrainCycles) {
          enter(Phase::kDone);
        }
        break;
      case Phase::kDone:
        break;
    }
  }

  // A cycle in which another tile still runs.
  void stall() noexcept { ++counts_.stall_cycles; }

  // At the barrier: accumulators to result registers.
  void commit() noexcept {
    const TaskDescriptor& task = *pass_->task;
    for (std::size_t lane = 0; lane < task.lanes; ++lane) {
      if (!pass_->runs(lane)) {
        continue;
      }
      const std::int64_t sum = static_cast<std::int32_t>(tile_->accumulators[lane]) +
                               (task.accumulate ? std::int64_t{tile_->results[lane]} : 0);
      const auto wrapped = static_cast<std::int32_t>(sum);
      tile_->results[lane] = wrapped;
      if (wrapped != sum) {
        tile_->overflow[lane] = 1;
        ++counts_.overflow_flags;
      }
    }
  }

 private:
  enum class Phase : std::uint8_t { kStart, kStep, kDrain, kDone };

  void enter(Phase phase) noexcept {
    phase_ = phase;
    waited_ = 0;
  }

  // One cycle of the sequence: the lowest pending depth of the activation word, or an idle cycle
  // where the word has none.
  void step() noexcept {
    const TaskDescriptor& task = *pass_->task;
    if (!word_fetched_) {
      fetch_activations();
    }
    if (pending_ != 0) {
      const auto i = static_cast<std::uint32_t>(std::countr_zero(pending_));
      pending_ &= pending_ - 1;
      multiply(depth_ + i, i);
    }
    if (pending_ == 0) {
      word_fetched_ = false;
      depth_ += kTritsPerWord;
      if (depth_ >= task.depth) {
        depth_ = 0;
        if (++plane_ == task.planes) {
          enter(Phase::kDrain);
        }
      }
    }
  }

  void fetch_activations() noexcept {
    const TaskDescriptor& task = *pass_->task;
    if (depth_ == 0) {
      for (std::uint32_t& accumulator : tile_->accumulators) {
        accumulator *= 3;
      }
    }
    const std::size_t words_a_plane = pt5_words(task.depth);
    const std::size_t j = plane_ * words_a_plane + depth_ / kTritsPerWord;
    activations_ = word_masks(tile_->bank_b[pass_->first_activation + j]);
    ++counts_.sram_reads;
    word_fetched_ = true;

    const std::size_t depths = std::min(kTritsPerWord, task.depth - depth_);
    pending_ = (1U << depths) - 1;
    if (task.zero_skip) {
      pending_ &= activations_.nonzero & occupied_depths(depths);
      const std::uint64_t skipped = depths - static_cast<unsigned>(std::popcount(pending_));
      counts_.zero_skips += skipped * pass_->lanes;
      counts_.sram_reads_saved += skipped * pass_->lanes_of_word.size();
    }
  }

  // Bit i: some weight word of depth depth_ + i is occupied.
  [[nodiscard]] std::uint32_t occupied_depths(std::size_t depths) const noexcept {
    std::uint32_t occupied = 0;
    for (std::size_t i = 0; i < depths; ++i) {
      const std::size_t first = weight_word(depth_ + i);
      for (std::size_t w = 0; w < pass_->lanes_of_word.size(); ++w) {
        occupied |= (tile_->occupied(first + w) ? 1U : 0U) << i;
      }
    }
    return occupied;
  }

  // Every lane at one depth; its activation is trit i of the fetched word.
  void multiply(std::size_t depth, std::uint32_t i) noexcept {
    const std::uint32_t nonzero_activation = (activations_.nonzero >> i & 1) != 0 ? 0x7FFFU : 0U;
    const std::uint32_t negative_activation = (activations_.negative >> i & 1) != 0 ? 0x7FFFU : 0U;
    const std::size_t first = weight_word(depth);
    for (std::size_t w = 0; w < pass_->lanes_of_word.size(); ++w) {
      const WordMasks weights = word_masks(tile_->bank_a[first + w]);
      const std::uint32_t lanes = pass_->lanes_of_word[w];
      const std::uint32_t nonzero = weights.nonzero & nonzero_activation & lanes;
      const std::uint32_t negative = weights.negative ^ negative_activation;
      std::uint32_t* accumulators = tile_->accumulators.data() + w * kTritsPerWord;
      for (std::uint32_t lane = 0; lane < kTritsPerWord; ++lane) {
        const std::uint32_t magnitude = nonzero >> lane & 1;
        accumulators[lane] += magnitude - 2 * (magnitude & negative >> lane);
      }
      ++counts_.sram_reads;
      // With zero-skip a lane whose product is zero is gated; without, it multiplies all the same.
      const std::uint32_t active = pass_->task->zero_skip ? nonzero : lanes;
      counts_.active_ops += static_cast<unsigned>(std::popcount(active));
      counts_.zero_skips += static_cast<unsigned>(std::popcount(lanes & ~active));
    }
  }

  [[nodiscard]] std::size_t weight_word(std::size_t depth) const noexcept {
    return pass_->first_weight + depth * pass_->lanes_of_word.size();
  }

  const Pass* pass_;
  TileState* tile_;
  std::uint32_t tile_index_;
  Phase phase_{Phase::kStart};
  std::uint64_t waited_{0};  // cycles in kStart or kDrain

  std::uint32_t plane_{0};
  std::size_t depth_{0};  // first depth of the activation word in work
  bool word_fetched_{false};
  WordMasks activations_{};
  std::uint32_t pending_{0};  // depths of the word still to be stepped through

  TileCounters counts_{};
};

}  // namespace tfmbs::fabric
