// What the products of ARM's sets share: how rows, depths and panels are cut. Everything is in an
// anonymous namespace (docs/kernels.md, "One definition").
#pragma once

#include <arm_neon.h>

#include "operations.hpp"
#include "panels.hpp"

namespace tfmbs::kernels {
namespace {

constexpr std::size_t kLineOutputs = 16;
constexpr std::size_t kRegisterOutputs = 4;
constexpr std::size_t kLineRegisters = kLineOutputs / kRegisterOutputs;
constexpr std::size_t kGroup = 16;      // depths
constexpr std::size_t kBlockRows = 64;  // that share a block of activations
constexpr std::size_t kBlockBytes = std::size_t{1} << 16;
constexpr std::size_t kMaxGroups = kBlockBytes / kGroup;

using Activations = ValueBlock<kBlockRows, kBlockBytes>;

inline void stage(const Int8MatmulArgs& args, std::size_t row, std::size_t rows, std::size_t first,
                  std::size_t depths, Activations& to) {
  for (std::size_t m = 0; m < rows; ++m) {
    const std::int8_t* from = args.activations + (row + m) * args.row_stride + first;
    std::int8_t* values = to.values + m * to.stride;
    if (depths > 0) __builtin_memcpy(values, from, depths);
    for (std::size_t k = depths; k < to.stride; ++k) values[k] = 0;
    int32x4_t sum = vdupq_n_s32(0);
    for (std::size_t k = 0; k < to.stride; k += kGroup) {
      sum = vpadalq_s16(sum, vpaddlq_s8(vld1q_s8(values + k)));
    }
    to.sums[m] = vaddvq_s32(sum);
  }
}

// Four sums of row m, from output `at` on.
inline void store(const Output& to, std::size_t m, std::size_t at, int32x4_t sum,
                  std::int32_t offset) {
  if (at >= to.left) return;
  std::int32_t* out = to.out + m * to.stride + at;
  sum = vsubq_s32(sum, vdupq_n_s32(offset));
  if (to.left - at >= kRegisterOutputs) {
    if (!to.first) sum = vaddq_s32(sum, vld1q_s32(out));
    return vst1q_s32(out, sum);
  }
  std::int32_t lanes[kRegisterOutputs];
  vst1q_s32(lanes, sum);
  for (std::size_t n = 0; n < to.left - at; ++n) out[n] = to.first ? lanes[n] : out[n] + lanes[n];
}

// Pair kPair of a register of bytes: the codes of four depths of four outputs.
template <int kPair>
inline int8x16_t codes_of(uint8x16_t bytes) {
  if constexpr (kPair == 0) {
    return vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(3)));
  } else if constexpr (kPair == 3) {
    return vreinterpretq_s8_u8(vshrq_n_u8(bytes, 6));
  } else {
    return vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(bytes, 2 * kPair), vdupq_n_u8(3)));
  }
}

// Some rows of a block times some groups of a panel.
struct Task {
  const Activations* from;
  std::size_t row;
  std::size_t rows;
  const std::uint8_t* panel;
  std::size_t lines;
  std::size_t groups;
  Output to;
};

// A chunk of a panel's depths stays in the nearest cache while every row of a block passes over it,
// at most max_rows at a time. product(task) does that.
template <typename Product>
inline void quads(const Int8MatmulArgs& args, std::size_t max_rows, Product product) {
  const WeightPanelsView& weights = args.weights;
  Activations block;
  for (std::size_t row = 0; row < args.rows; row += kBlockRows) {
    const std::size_t rows = args.rows - row < kBlockRows ? args.rows - row : kBlockRows;
    // Chunks of even depths; without depths there is still a zero to write.
    const std::size_t most = kBlockBytes / rows / kGroup * kGroup;
    const std::size_t depth = weights.depth > 0 ? weights.depth : 1;
    const std::size_t chunks = (depth + most - 1) / most;
    const std::size_t chunk = ((depth + chunks - 1) / chunks + kGroup - 1) / kGroup * kGroup;
    for (std::size_t first = 0; first < depth; first += chunk) {
      const std::size_t left = weights.depth - first;
      const std::size_t depths = left < chunk ? left : chunk;
      const std::size_t groups = (depths + kGroup - 1) / kGroup;
      block.stride = groups * kGroup;
      stage(args, row, rows, first, depths, block);
      for (std::size_t n = 0; n < args.outputs; n += kPanelOutputs) {
        const Panel panel =
            panel_of<kGroup, kLineOutputs>(weights, (args.first_output + n) / kPanelOutputs);
        const std::uint8_t* bytes = panel.bytes + first / kGroup * panel.lines * kPanelBytes;
        for (std::size_t m = 0; m < rows; m += max_rows) {
          product(Task{.from = &block,
                       .row = m,
                       .rows = rows - m < max_rows ? rows - m : max_rows,
                       .panel = bytes,
                       .lines = panel.lines,
                       .groups = groups,
                       .to = {.out = args.out + (row + m) * args.out_stride + n,
                              .stride = args.out_stride,
                              .left = args.outputs - n,
                              .first = first == 0}});
        }
      }
    }
  }
}

}  // namespace
}  // namespace tfmbs::kernels
