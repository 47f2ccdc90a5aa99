#include "tfmbs/device/activation_counter.hpp"

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::device {

ActivationCounter::ActivationCounter(const ActivationNeeds& needs, std::size_t samples,
                                     std::size_t depth, execution::Scratch& scratch)
    : samples_(samples),
      depth_(depth),
      chunk_depth_(needs.chunk_depth),
      chunks_(chunk_depth_ == 0 ? 0 : (depth + chunk_depth_ - 1) / chunk_depth_) {
  counts_.cycles = scratch.take<std::uint32_t>(samples * chunks_);
  counts_.columns = scratch.take<std::uint32_t>(depth);
  std::fill(counts_.columns.begin(), counts_.columns.end(), 0);
}

ActivationCounter::Part ActivationCounter::begin_part(std::size_t begin, std::size_t end,
                                                      execution::Scratch& memory) {
  if (begin == 0 && end == samples_) return {.columns = counts_.columns, .alone = true};
  const auto columns = memory.take<std::uint32_t>(depth_);
  std::fill(columns.begin(), columns.end(), 0);
  return {.columns = columns, .alone = false};
}

void ActivationCounter::count_rows(const ActivationRows& block, std::size_t row, std::size_t rows,
                                   Part& part) noexcept {
  std::uint32_t* const cycles = chunks_ == 0 ? nullptr : counts_.cycles.data() + row * chunks_;
  if (block.values != nullptr) {
    kernels::active().digit_count({.values = block.values,
                                   .rows = rows,
                                   .depth = depth_,
                                   .chunk_depth = chunk_depth_,
                                   .cycles = cycles,
                                   .steps = &part.nonzeros,
                                   .counts = part.columns.data()});
    return;
  }
  if (cycles != nullptr) {
    std::uint64_t nonzeros = 0;
    kernels::active().field_count({.activations = block.planes,
                                   .rows = rows,
                                   .trits = depth_,
                                   .chunk_depth = chunk_depth_,
                                   .cycles = cycles,
                                   .steps = &nonzeros});
    part.nonzeros += nonzeros;
    if (nonzeros == rows * depth_) {
      part.full_rows += rows;
      return;
    }
  }
  kernels::active().column_count(
      {.activations = block.planes, .rows = rows, .trits = depth_, .counts = part.columns.data()});
}

void ActivationCounter::end_part(const Part& part) {
  const std::scoped_lock lock(mutex_);
  counts_.nonzeros += part.nonzeros;
  counts_.full_rows += part.full_rows;
  if (part.alone) return;
  for (std::size_t k = 0; k < depth_; ++k) counts_.columns[k] += part.columns[k];
}

}  // namespace tfmbs::device
