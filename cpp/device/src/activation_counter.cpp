#include "tfmbs/device/activation_counter.hpp"

#include <bit>
#include <cstring>
#include <numeric>

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::device {
namespace {

constexpr std::size_t kPaddedRows = 8;  // of a kernel call

}  // namespace

ActivationCounter::ActivationCounter(const ActivationNeeds& needs, std::size_t samples,
                                     std::size_t depth, execution::Scratch& scratch)
    : samples_(samples),
      depth_(depth),
      chunk_depth_(needs.chunk_depth),
      fields_(depth, needs.group_depth),
      chunk_fields_(fields_, std::max<std::size_t>(chunk_depth_, 1)),
      chunks_(chunk_depth_ == 0 ? 0 : chunk_fields_.count()) {
  counts_.cycles = scratch.take<std::uint32_t>(samples * chunks_);
  counts_.columns = scratch.take<std::uint32_t>(depth);
  std::fill(counts_.columns.begin(), counts_.columns.end(), 0);
}

ActivationCounter::Part ActivationCounter::begin_part(std::size_t begin, std::size_t end,
                                                      execution::Scratch& memory) {
  if (begin == 0 && end == samples_) {
    return {.memory = &memory, .columns = counts_.columns, .alone = true};
  }
  const auto columns = memory.take<std::uint32_t>(depth_);
  std::fill(columns.begin(), columns.end(), 0);
  return {.memory = &memory, .columns = columns, .alone = false};
}

void ActivationCounter::count_rows(const ActivationRows& block, std::size_t row, std::size_t rows,
                                   Part& part) {
  std::uint32_t* const cycles = chunks_ == 0 ? nullptr : counts_.cycles.data() + row * chunks_;
  const bool grouped = fields_.grouped() && cycles != nullptr;
  if (block.values != nullptr) {
    if (grouped) return count_group_values(block.values, row, rows, part);
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
    if (grouped) {
      nonzeros = count_group_fields(block.planes, row, rows);
    } else {
      kernels::active().field_count({.activations = block.planes,
                                     .rows = rows,
                                     .trits = depth_,
                                     .chunk_depth = chunk_depth_,
                                     .cycles = cycles,
                                     .steps = &nonzeros});
    }
    part.nonzeros += nonzeros;
    if (nonzeros == rows * depth_) {
      part.full_rows += rows;
      return;
    }
  }
  kernels::active().column_count(
      {.activations = block.planes, .rows = rows, .trits = depth_, .counts = part.columns.data()});
}

std::uint64_t ActivationCounter::count_group_fields(const std::uint64_t* planes, std::size_t row,
                                                    std::size_t rows) noexcept {
  const BitPlaneView view{planes, rows, depth_};
  std::uint64_t steps = 0;
  for (std::size_t r = 0; r < rows; ++r) {
    const std::uint64_t* bits = view.row(r);
    std::uint32_t* const cycles = counts_.cycles.data() + (row + r) * chunks_;
    std::uint32_t sum = 0;
    std::size_t chunk = 0;
    std::size_t end = chunk_fields_.end(0);
    fields_.for_each([&](std::size_t field, std::size_t begin, std::size_t depths) {
      const auto nonzeros =
          static_cast<std::uint32_t>(std::popcount(DepthFields::bits(bits, begin, depths)));
      steps += nonzeros;
      sum += std::max(nonzeros, 1U);
      if (field + 1 != end) return;
      cycles[chunk++] = sum;
      sum = 0;
      if (chunk < chunks_) end = chunk_fields_.end(chunk);
    });
  }
  return steps;
}

// The kernel's chunks are of the fields that divide all chunks.
void ActivationCounter::count_group_values(const std::int8_t* values, std::size_t row,
                                           std::size_t rows, Part& part) {
  const std::size_t stride = fields_.group_fields() * kernels::kFieldTrits;
  const std::size_t whole_groups = (depth_ - 1) / fields_.group_depth();
  const std::size_t last_begin = whole_groups * fields_.group_depth();
  const std::size_t padded = whole_groups * stride + depth_ - last_begin;
  const std::size_t unit = std::gcd(fields_.group_fields(), chunk_fields_.largest());
  const std::size_t units = (fields_.count() + unit - 1) / unit;
  if (part.padded_rows.empty()) {
    part.padded_rows = part.memory->take<std::int8_t>(kPaddedRows * padded);
    part.padded_cycles = part.memory->take<std::uint32_t>(kPaddedRows * units);
    part.padded_columns = part.memory->take<std::uint32_t>(padded);
    std::fill(part.padded_rows.begin(), part.padded_rows.end(), std::int8_t{0});
    std::fill(part.padded_columns.begin(), part.padded_columns.end(), 0);
  }
  for (std::size_t first = 0; first < rows; first += kPaddedRows) {
    const std::size_t count = std::min(kPaddedRows, rows - first);
    for (std::size_t r = 0; r < count; ++r) {
      const std::int8_t* from = values + (first + r) * depth_;
      std::int8_t* to = part.padded_rows.data() + r * padded;
      for (std::size_t g = 0; g < whole_groups; ++g, to += stride) {
        std::memcpy(to, from + g * fields_.group_depth(), fields_.group_depth());
      }
      std::memcpy(to, from + last_begin, depth_ - last_begin);
    }
    kernels::active().digit_count({.values = part.padded_rows.data(),
                                   .rows = count,
                                   .depth = padded,
                                   .chunk_depth = unit * kernels::kFieldTrits,
                                   .cycles = part.padded_cycles.data(),
                                   .steps = &part.nonzeros,
                                   .counts = part.padded_columns.data()});
    for (std::size_t r = 0; r < count; ++r) {
      const std::uint32_t* from = part.padded_cycles.data() + r * units;
      std::uint32_t* to = counts_.cycles.data() + (row + first + r) * chunks_;
      for (std::size_t c = 0; c < chunks_; ++c) {
        const std::size_t end = (chunk_fields_.end(c) + unit - 1) / unit;
        to[c] = std::accumulate(from + chunk_fields_.begin(c) / unit, from + end, 0U);
      }
    }
  }
}

void ActivationCounter::end_part(const Part& part) {
  if (!part.padded_columns.empty()) {
    const std::size_t stride = fields_.group_fields() * kernels::kFieldTrits;
    for (std::size_t k = 0; k < depth_; ++k) {
      const std::size_t group = k / fields_.group_depth();
      part.columns[k] += part.padded_columns[group * stride + k - group * fields_.group_depth()];
    }
  }
  const std::scoped_lock lock(mutex_);
  counts_.nonzeros += part.nonzeros;
  counts_.full_rows += part.full_rows;
  if (part.alone) return;
  for (std::size_t k = 0; k < depth_; ++k) counts_.columns[k] += part.columns[k];
}

}  // namespace tfmbs::device
