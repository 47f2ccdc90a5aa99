#include "input_quantizer.hpp"

#include <algorithm>
#include <mutex>
#include <vector>

#include "aligned_buffer.hpp"
#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::runtime {
namespace {

// Values below which another thread costs more than it brings, and what a row costs besides its
// values, in values. Counting takes as long as quantizing.
constexpr std::size_t kTernarizeGrain = std::size_t{1} << 17;
constexpr std::size_t kTernarizeRow = 512;
constexpr std::size_t kQuantizeGrain = std::size_t{1} << 15;
constexpr std::size_t kQuantizeRow = 128;
constexpr std::size_t kCounted = 2;
// Values or planes that are counted as soon as they are made: a share of the second cache.
constexpr std::size_t kCountedBytes = std::size_t{1} << 16;

// Memory that a thread keeps between forwards: of the forward, and of its part of one.
struct ForwardMemory {
  AlignedBuffer<std::uint64_t> planes;
  AlignedBuffer<std::int8_t> values;
  std::vector<double> scales;
  std::vector<std::uint8_t> nan_rows;
};
ForwardMemory& forward_memory() {
  thread_local ForwardMemory memory;
  return memory;
}
std::vector<std::uint32_t>& part_columns() {
  thread_local std::vector<std::uint32_t> columns;
  return columns;
}

// What is found in some samples: `cycles` is set (null: not counted), the rest is added to.
struct CountedRows {
  std::size_t chunk_depth{0};
  std::uint32_t* columns{nullptr};
  std::uint32_t* cycles{nullptr};
  std::uint64_t nonzeros{0};
  std::uint64_t full_rows{0};
};

// Counts for several threads, each of which does a part of the samples.
class Counting {
 public:
  Counting(const ActivationRequest& request, std::size_t samples, std::size_t depth)
      : counts_(request.counts),
        samples_(samples),
        depth_(depth),
        chunk_depth_(request.chunk_depth),
        chunks_(chunk_depth_ == 0 ? 0 : (depth + chunk_depth_ - 1) / chunk_depth_) {
    if (counts_ == nullptr) return;
    counts_->cycles.resize(samples * chunks_);
    counts_->columns.assign(depth, 0);
    counts_->nonzeros = 0;
    counts_->full_rows = 0;
  }

  // Every sample once: `quantize_rows(begin, end)`, or where counts are wanted `count_rows(row,
  // rows, found)`, which quantizes them, too, and adds to what is found. A sample takes as long as
  // `row_values` of `grain` values, and `row_bytes` of memory until it is counted.
  template <typename QuantizeRows, typename CountRows>
  void run(const Executor& executor, std::size_t grain, std::size_t row_values,
           std::size_t row_bytes, const QuantizeRows& quantize_rows, const CountRows& count_rows) {
    const std::size_t work = row_values * (counts_ != nullptr ? kCounted : 1);
    const std::size_t step = std::max<std::size_t>(kCountedBytes / row_bytes, 1);
    executor.parallel_for(samples_, 1 + grain / work, [&](std::size_t begin, std::size_t end) {
      if (counts_ == nullptr) {
        quantize_rows(begin, end);
      } else {
        count_part(begin, end, step, count_rows);
      }
    });
  }

 private:
  // Adds up what `count_rows` finds in samples [begin, end), `step` at a time.
  template <typename CountRows>
  void count_part(std::size_t begin, std::size_t end, std::size_t step,
                  const CountRows& count_rows) {
    const bool alone = begin == 0 && end == samples_;
    std::vector<std::uint32_t>& own_columns = part_columns();
    if (!alone) own_columns.assign(depth_, 0);
    CountedRows found{.chunk_depth = chunk_depth_,
                      .columns = alone ? counts_->columns.data() : own_columns.data()};
    for (std::size_t row = begin; row < end; row += step) {
      found.cycles = chunks_ == 0 ? nullptr : counts_->cycles.data() + row * chunks_;
      count_rows(row, std::min(step, end - row), found);
    }
    const std::scoped_lock lock(mutex_);
    counts_->nonzeros += found.nonzeros;
    counts_->full_rows += found.full_rows;
    if (alone) return;
    for (std::size_t k = 0; k < depth_; ++k) counts_->columns[k] += own_columns[k];
  }

  ActivationCounts* counts_;
  std::size_t samples_;
  std::size_t depth_;
  std::size_t chunk_depth_;
  std::size_t chunks_;
  std::mutex mutex_;  // of what the parts add up
};

}  // namespace

QuantizedActivations InputQuantizer::quantize(const ActivationRequest& request) {
  forward_memory().nan_rows.resize(args_.samples);
  if (activation_ == Activation::kInt8) {
    quantize_int8(request);
  } else {
    ternarize(request);
  }
  return activations_;
}

void InputQuantizer::ternarize(const ActivationRequest& request) {
  ForwardMemory& memory = forward_memory();
  const std::size_t row_words = bit_plane_blocks(depth_) * kBlockWords;
  std::uint64_t* words = memory.planes.reserve(args_.samples * row_words);
  const auto* input = static_cast<const std::byte*>(args_.input);
  const std::size_t row_bytes = depth_ * kernels::float_bytes(args_.input_type);
  const auto ternarize_rows = [&](std::size_t begin, std::size_t end) {
    kernels::active().ternarize({.input = input + begin * row_bytes,
                                 .type = args_.input_type,
                                 .rows = end - begin,
                                 .columns = depth_,
                                 .row_stride = depth_,
                                 .thresholds = nullptr,
                                 .planes = words + begin * row_words,
                                 .nan_rows = memory.nan_rows.data() + begin});
  };
  Counting counting(request, args_.samples, depth_);
  const auto count_rows = [&](std::size_t row, std::size_t rows, CountedRows& found) {
    ternarize_rows(row, row + rows);
    const std::uint64_t* planes = words + row * row_words;
    if (found.cycles != nullptr) {
      std::uint64_t nonzeros = 0;
      kernels::active().field_count({.activations = planes,
                                     .rows = rows,
                                     .trits = depth_,
                                     .chunk_depth = found.chunk_depth,
                                     .cycles = found.cycles,
                                     .steps = &nonzeros});
      found.nonzeros += nonzeros;
      if (nonzeros == rows * depth_) {
        found.full_rows += rows;
        return;
      }
    }
    kernels::active().column_count(
        {.activations = planes, .rows = rows, .trits = depth_, .counts = found.columns});
  };
  counting.run(executor_, kTernarizeGrain, depth_ + kTernarizeRow, row_words * sizeof *words,
               ternarize_rows, count_rows);
  activations_ = {{words, args_.samples, depth_, 1}, nullptr};
  scales_ = {nullptr, memory.nan_rows.data()};
}

void InputQuantizer::quantize_int8(const ActivationRequest& request) {
  ForwardMemory& memory = forward_memory();
  const std::size_t row_words = bit_plane_blocks(depth_) * kBlockWords;
  const std::size_t plane_words = args_.samples * row_words;
  std::uint64_t* planes =
      request.planes ? memory.planes.reserve(kernels::kInt8Planes * plane_words) : nullptr;
  std::int8_t* values = memory.values.reserve(args_.samples * depth_);
  memory.scales.resize(args_.samples);
  const auto* input = static_cast<const std::byte*>(args_.input);
  const std::size_t row_bytes = depth_ * kernels::float_bytes(args_.input_type);
  const auto quantize_rows = [&](std::size_t begin, std::size_t end) {
    kernels::active().quantize_int8(
        {.input = input + begin * row_bytes,
         .type = args_.input_type,
         .rows = end - begin,
         .columns = depth_,
         .row_stride = depth_,
         .planes = planes == nullptr ? nullptr : planes + begin * row_words,
         .plane_stride = plane_words,
         .values = values + begin * depth_,
         .scales = memory.scales.data() + begin,
         .nan_rows = memory.nan_rows.data() + begin});
  };
  Counting counting(request, args_.samples, depth_);
  const auto count_rows = [&](std::size_t row, std::size_t rows, CountedRows& found) {
    quantize_rows(row, row + rows);
    kernels::active().digit_count({.values = values + row * depth_,
                                   .rows = rows,
                                   .depth = depth_,
                                   .chunk_depth = found.chunk_depth,
                                   .cycles = found.cycles,
                                   .steps = &found.nonzeros,
                                   .counts = found.columns});
  };
  counting.run(executor_, kQuantizeGrain, depth_ + kQuantizeRow, depth_, quantize_rows, count_rows);
  activations_ = {{planes, args_.samples, depth_, static_cast<std::uint32_t>(kernels::kInt8Planes)},
                  values};
  scales_ = {memory.scales.data(), memory.nan_rows.data()};
}

}  // namespace tfmbs::runtime
