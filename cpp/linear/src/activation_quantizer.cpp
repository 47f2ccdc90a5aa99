#include "tfmbs/linear/activation_quantizer.hpp"

#include <algorithm>

#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::linear {
namespace {

// How many values are worth another thread, and what a row costs besides its values, in values.
// A visitor takes as long as quantizing.
struct Grain {
  std::size_t values;
  std::size_t row;
};
constexpr Grain kPlaneGrain{std::size_t{1} << 17, 512};
constexpr Grain kValueGrain{std::size_t{1} << 15, 128};
constexpr std::size_t kVisited = 2;
// Bytes of a visited block: a share of the second cache.
constexpr std::size_t kBlockBytes = std::size_t{1} << 16;

}  // namespace

void ActivationQuantizer::quantize(const execution::Executor& executor, BlockVisitor* visitor,
                                   bool planes) {
  row_bytes_ = mode_.row_bytes(depth_);
  rows_ = scratch_.take<std::byte>(args_.samples * row_bytes_);
  nan_rows_ = scratch_.take<std::uint8_t>(args_.samples);
  if (mode_.has_scales) scales_ = scratch_.take<double>(args_.samples);
  const std::size_t row_words = bit_plane_blocks(depth_) * kBlockWords;
  const std::size_t plane_words = args_.samples * row_words;
  if (planes && mode_.by_values) {
    planes_ = scratch_.take<std::uint64_t>(mode_.planes * plane_words);
  }
  const auto* input = static_cast<const std::byte*>(args_.input);
  const std::size_t input_bytes = depth_ * kernels::float_bytes(args_.input_type);
  const auto quantize_rows = [&](std::size_t row, std::size_t count) -> ActivationRows {
    std::byte* const out = rows_.data() + row * row_bytes_;
    mode_.quantize({.input = input + row * input_bytes,
                    .type = args_.input_type,
                    .rows = count,
                    .columns = depth_,
                    .row_stride = depth_,
                    .out = out,
                    .planes = planes_.empty() ? nullptr : planes_.data() + row * row_words,
                    .plane_stride = plane_words,
                    .scales = scales_.empty() ? nullptr : scales_.data() + row,
                    .nan_rows = nan_rows_.data() + row,
                    .magnitudes = args_.magnitudes == nullptr ? nullptr : args_.magnitudes + row});
    if (mode_.by_values) return {nullptr, reinterpret_cast<const std::int8_t*>(out)};
    return {reinterpret_cast<const std::uint64_t*>(out), nullptr};
  };
  const Grain grain = mode_.by_values ? kValueGrain : kPlaneGrain;
  const std::size_t work = (depth_ + grain.row) * (visitor != nullptr ? kVisited : 1);
  const std::size_t block_rows = std::max<std::size_t>(kBlockBytes / row_bytes_, 1);
  executor.parallel_for(args_.samples, 1 + grain.values / work,
                        [&](std::size_t begin, std::size_t end) {
                          if (visitor == nullptr) {
                            static_cast<void>(quantize_rows(begin, end - begin));
                          } else {
                            visitor->visit(begin, end, block_rows, quantize_rows);
                          }
                        });
}

QuantizedActivations ActivationQuantizer::activations() const noexcept {
  if (mode_.by_values) {
    return {{planes_.empty() ? nullptr : planes_.data(), args_.samples, depth_, mode_.planes},
            reinterpret_cast<const std::int8_t*>(rows_.data())};
  }
  return {{reinterpret_cast<const std::uint64_t*>(rows_.data()), args_.samples, depth_, 1},
          nullptr};
}

}  // namespace tfmbs::linear
