#include "composed_groups.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace tfmbs::kernels::composed {
namespace {

constexpr std::size_t kRows = 64;  // of one product: 16 KiB of sums

// Some inputs of a panel, as weights of their own: a layout's bytes of consecutive inputs stand
// beside each other.
WeightPanelsView group_of(const WeightPanelsView& weights, std::size_t p, std::size_t first,
                          std::size_t inputs) noexcept {
  const std::size_t before = first / group_depth(weights.layout) * weights.lines(p) * kPanelBytes;
  return {.bytes = weights.bytes + weights.panel_offset(p) + before,
          .layout = weights.layout,
          .outputs = std::min(kPanelOutputs, weights.outputs - p * kPanelOutputs),
          .depth = inputs};
}

// multiply(row, rows, group, first, outputs, sums) writes `rows` x `outputs` sums, kPanelOutputs
// apart, of the group that begins at input `first`.
template <typename Real, typename Args, typename Multiply>
void add_groups(const Args& args, Multiply multiply) noexcept {
  const GroupScalesView& scales = args.scales;
  auto* out = static_cast<Real*>(args.out);
  alignas(64) std::int32_t sums[kRows * kPanelOutputs];
  for (std::size_t row = 0; row < args.rows; row += kRows) {
    const std::size_t rows = std::min(kRows, args.rows - row);
    for (std::size_t n = 0; n < args.outputs; n += kPanelOutputs) {
      const std::size_t outputs = std::min(kPanelOutputs, args.outputs - n);
      Real* block = out + row * args.out_stride + n;
      for (std::size_t m = 0; m < rows; ++m)
        std::fill_n(block + m * args.out_stride, outputs, Real{0});
      const std::size_t output = args.first_output + n;
      for (std::size_t g = 0; g < scales.groups(); ++g) {
        const std::size_t first = g * scales.group;
        const std::size_t inputs = std::min(scales.group, args.weights.depth - first);
        multiply(row, rows, group_of(args.weights, output / kPanelOutputs, first, inputs), first,
                 outputs, sums);
        const float* scale = scales.values + scales.index(output, g);
        for (std::size_t m = 0; m < rows; ++m) {
          const std::int32_t* sum = sums + m * kPanelOutputs;
          Real* to = block + m * args.out_stride;
          for (std::size_t i = 0; i < outputs; ++i) {
            to[i] += static_cast<Real>(sum[i]) * static_cast<Real>(scale[i]);
          }
        }
      }
    }
  }
}

template <typename Args, typename Multiply>
void grouped(const Args& args, Multiply multiply) noexcept {
  if (args.wide) {
    add_groups<double>(args, multiply);
  } else {
    add_groups<float>(args, multiply);
  }
}

// At most kMostScaleGroup trits of a row from `first` on, as a row of their own. A word of 64 trits
// holds all of 32, and larger groups begin with a word.
void copy_group(const std::uint64_t* row, std::size_t first, std::size_t inputs,
                std::uint64_t* to) noexcept {
  static_assert(kMostScaleGroup <= kBlockTrits);
  std::fill_n(to, kBlockWords, std::uint64_t{0});
  for (std::size_t k = 0; k < inputs; k += 64) {
    const std::uint64_t* word = row + bit_plane_word(first + k);
    const std::uint64_t valid =
        inputs - k < 64 ? (std::uint64_t{1} << (inputs - k)) - 1 : ~std::uint64_t{0};
    to[k / 64] = word[0] >> first % 64 & valid;
    to[k / 64 + kPlaneWords] = word[kPlaneWords] >> first % 64 & valid;
  }
}

}  // namespace

void grouped_trit_matmul(const GroupedTritMatmulArgs& args, TritMatmul product) noexcept {
  const BitPlaneView activations{args.activations, args.rows, args.weights.depth};
  grouped(args, [&](std::size_t row, std::size_t rows, const WeightPanelsView& group,
                    std::size_t first, std::size_t outputs, std::int32_t* sums) {
    std::uint64_t planes[kRows * kBlockWords];
    for (std::size_t m = 0; m < rows; ++m) {
      copy_group(activations.row(row + m), first, group.depth, planes + m * kBlockWords);
    }
    product({.activations = planes,
             .rows = rows,
             .weights = group,
             .first_output = 0,
             .outputs = outputs,
             .out = sums,
             .out_stride = kPanelOutputs});
  });
}

void grouped_int8_matmul(const GroupedInt8MatmulArgs& args, Int8Matmul product) noexcept {
  grouped(args, [&](std::size_t row, std::size_t rows, const WeightPanelsView& group,
                    std::size_t first, std::size_t outputs, std::int32_t* sums) {
    product({.activations = args.activations + row * args.row_stride + first,
             .rows = rows,
             .row_stride = args.row_stride,
             .weights = group,
             .first_output = 0,
             .outputs = outputs,
             .out = sums,
             .out_stride = kPanelOutputs});
  });
}

}  // namespace tfmbs::kernels::composed
