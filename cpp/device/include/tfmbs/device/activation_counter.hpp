// What the closed form takes of activations, counted as they are quantized, some rows at a time,
// while these are in the nearest caches.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>

#include "tfmbs/device/depth_fields.hpp"
#include "tfmbs/execution/workspace.hpp"
#include "tfmbs/format/activations.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::device {

// What a device wants of a forward pass's activations besides what the product reads.
struct ActivationNeeds {
  bool planes{false};  // of int8 activations, all of them
  bool counts{false};  // ActivationCounts
  // Of the largest chunk of ActivationCounts::cycles, a multiple of 15 or a scale group; 0: none.
  std::uint32_t chunk_depth{0};
  std::uint32_t group_depth{0};  // depths of a scale group; 0: one
};

// A row here is a sample's plane.
struct ActivationCounts {
  // Of each sample and chunk: the cycles of a tile whose weights are occupied at every depth,
  // without kPassOverhead. Empty unless they were asked for.
  std::span<std::uint32_t> cycles{};
  std::uint64_t nonzeros{0};  // over all rows and depths, wherever cycles are counted
  // Of each depth: rows that are not zero there. Precondition: there are less than 2^32 rows.
  std::span<std::uint32_t> columns{};
  // Rows without a zero that `columns` leaves out: ternary samples that were counted together, and
  // none of which held one.
  std::uint64_t full_rows{0};
};

// Counts for several threads, each of which sees a part of the samples.
class ActivationCounter {
 public:
  // The counts lie in `scratch`. Throws std::bad_alloc.
  ActivationCounter(const ActivationNeeds& needs, std::size_t samples, std::size_t depth,
                    execution::Scratch& scratch);

  // Samples [begin, end), once each in all: `quantize(row, rows)` gives the next rows, at most
  // block_rows of them. Throws std::bad_alloc.
  template <typename Quantize>
  void count(std::size_t begin, std::size_t end, std::size_t block_rows, const Quantize& quantize) {
    execution::Scratch memory;  // this thread's
    Part part = begin_part(begin, end, memory);
    for (std::size_t row = begin; row < end; row += block_rows) {
      const std::size_t rows = std::min(block_rows, end - row);
      count_rows(quantize(row, rows), row, rows, part);
    }
    end_part(part);
  }

  [[nodiscard]] const ActivationCounts& counts() const noexcept { return counts_; }

 private:
  // What is found in some samples.
  struct Part {
    execution::Scratch* memory;
    std::span<std::uint32_t> columns;
    bool alone;  // of all samples, so `columns` are the counter's
    std::uint64_t nonzeros{0};
    std::uint64_t full_rows{0};
    // Of int8 activations with scale groups, which the kernel counts with each group padded to
    // whole fields: some rows, their cycles, and the columns.
    std::span<std::int8_t> padded_rows{};
    std::span<std::uint32_t> padded_cycles{};
    std::span<std::uint32_t> padded_columns{};
  };
  [[nodiscard]] Part begin_part(std::size_t begin, std::size_t end, execution::Scratch& memory);
  void count_rows(const ActivationRows& block, std::size_t row, std::size_t rows, Part& part);
  void count_group_values(const std::int8_t* values, std::size_t row, std::size_t rows, Part& part);
  // Cycles of the rows; gives their steps.
  std::uint64_t count_group_fields(const std::uint64_t* planes, std::size_t row,
                                   std::size_t rows) noexcept;
  void end_part(const Part& part);

  ActivationCounts counts_;
  std::size_t samples_;
  std::size_t depth_;
  std::size_t chunk_depth_;
  DepthFields fields_;
  ChunkFields chunk_fields_;
  std::size_t chunks_;
  std::mutex mutex_;  // of what the parts add up
};

}  // namespace tfmbs::device

#pragma GCC visibility pop
