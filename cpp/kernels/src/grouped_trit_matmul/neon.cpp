// Tables look up the products of pairs of trits (neon_pairs.hpp), as in trit_matmul/neon.cpp; a
// group's sums are collected in bytes and in words, and become fp32 where it ends.
#include <arm_neon.h>

#include "composed_groups.hpp"
#include "grouped_neon.hpp"
#include "operations.hpp"
#include "panels.hpp"
#include "trit_matmul/neon_pairs.hpp"

namespace tfmbs::kernels::neon {
namespace {

// Every chunk begins with a group.
static_assert(kBlockTrits % kMostScaleGroup == 0);

// Some rows times the codes of a panel's chunk.
struct Task {
  const Activations* from;
  std::size_t row;
  const std::uint8_t* weights;
  std::size_t codes;
  std::size_t group_codes;  // of each group but the last
  const float* scales;      // kGroupScales a group
  ScaledOutput to;
};

// kRows rows times one panel.
template <std::size_t kRows>
__attribute__((noinline)) void product(const Task& task) {
  // Bytes further on, so that weights from memory arrive in time; beyond the end it is harmless.
  constexpr std::size_t kAhead = 4096;
  constexpr std::size_t kParts = kPanelOutputs / kFloats;
  const uint8x16_t nibble = vdupq_n_u8(15);
  const float* scales = task.scales;
  float32x4_t sums[kRows][kParts];
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t i = 0; i < kParts; ++i) sums[m][i] = load_sums(task.to, m, i * kFloats);
  }
  for (std::size_t group = 0; group < task.codes; group += task.group_codes) {
    const std::size_t left = task.codes - group;
    const std::size_t group_end = group + (left < task.group_codes ? left : task.group_codes);
    uint16x8_t words[kRows][kRegisters][2];
    for (std::size_t m = 0; m < kRows; ++m) {
      for (std::size_t r = 0; r < kRegisters; ++r) words[m][r][0] = words[m][r][1] = vdupq_n_u16(0);
    }
    for (std::size_t first = group; first < group_end; first += kRun) {
      const std::size_t end = group_end - first < kRun ? group_end : first + kRun;
      uint8x16_t bytes[kRows][kRegisters];
#pragma GCC unroll 4
      for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
        for (std::size_t r = 0; r < kRegisters; ++r) bytes[m][r] = vdupq_n_u8(0);
      }
      for (std::size_t g = first; g < end; ++g) {
        const std::uint8_t* at = task.weights + g * kPanelBytes;
        if constexpr (kRows == 1) __builtin_prefetch(at + kAhead);
        uint8x16_t low[kRegisters];
        uint8x16_t high[kRegisters];
#pragma GCC unroll 4
        for (std::size_t r = 0; r < kRegisters; ++r) {
          const uint8x16_t line = vld1q_u8(at + 16 * r);
          low[r] = vandq_u8(line, nibble);
          high[r] = vshrq_n_u8(line, 4);
        }
#pragma GCC unroll 4
        for (std::size_t m = 0; m < kRows; ++m) {
          const std::uint8_t code = task.from->codes[task.row + m][g];
          const uint8x16_t low_table = vld1q_u8(kProducts.entries[code & 15]);
          const uint8x16_t high_table = vld1q_u8(kProducts.entries[code >> 4]);
#pragma GCC unroll 4
          for (std::size_t r = 0; r < kRegisters; ++r) {
            bytes[m][r] = vaddq_u8(bytes[m][r], vaddq_u8(vqtbl1q_u8(low_table, low[r]),
                                                         vqtbl1q_u8(high_table, high[r])));
          }
        }
      }
#pragma GCC unroll 4
      for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
        for (std::size_t r = 0; r < kRegisters; ++r) {
          words[m][r][0] = vaddw_u8(words[m][r][0], vget_low_u8(bytes[m][r]));
          words[m][r][1] = vaddw_high_u8(words[m][r][1], bytes[m][r]);
        }
      }
    }
    const uint16x8_t bias =
        vdupq_n_u16(static_cast<std::uint16_t>(2 * kBias * static_cast<int>(group_end - group)));
    for (std::size_t m = 0; m < kRows; ++m) {
      for (std::size_t i = 0; i < kParts; i += 2) {
        const uint16x8_t eight = words[m][i / 4][i / 2 % 2];
        const int32x4_t low =
            vreinterpretq_s32_u32(vsubl_u16(vget_low_u16(eight), vget_low_u16(bias)));
        const int32x4_t high = vreinterpretq_s32_u32(vsubl_high_u16(eight, bias));
        sums[m][i] = add_group(sums[m][i], low, scales + i * kFloats);
        sums[m][i + 1] = add_group(sums[m][i + 1], high, scales + (i + 1) * kFloats);
      }
    }
    scales += kGroupScales;
  }
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t i = 0; i < kParts; ++i) store_sums(task.to, m, i * kFloats, sums[m][i]);
  }
}

void pairs(const GroupedTritMatmulArgs& args) {
  const WeightPanelsView& weights = args.weights;
  const std::size_t blocks = (weights.depth + kBlockTrits - 1) / kBlockTrits;
  const std::size_t all_codes = (weights.depth + 3) / 4;
  const std::size_t panel_bytes = all_codes * kPanelBytes;
  const std::size_t chunks = blocks == 0 ? 1 : (blocks + kChunkBlocks - 1) / kChunkBlocks;
  const std::size_t chunk = (blocks + chunks - 1) / chunks;
  Activations block;
  for (std::size_t row = 0; row < args.rows; row += kBlockRows) {
    const std::size_t rows = args.rows - row < kBlockRows ? args.rows - row : kBlockRows;
    for (std::size_t c = 0; c < chunks; ++c) {
      const std::size_t begin = c * chunk;
      const std::size_t end = begin + chunk < blocks ? begin + chunk : blocks;
      for (std::size_t m = 0; m < rows; ++m) {
        const std::uint64_t* planes = args.activations + (row + m) * blocks * kBlockWords;
        std::uint8_t* codes = block.codes[m];
        for (std::size_t b = begin; b < end; ++b) {
          for (std::size_t w = 0; w < kPlaneWords; w += 2, codes += 32) {
            encode(planes + b * kBlockWords + w, codes);
          }
        }
      }
      const std::size_t first = begin * kBlockCodes;
      const std::size_t last = end * kBlockCodes < all_codes ? end * kBlockCodes : all_codes;
      for (std::size_t n = 0; n < args.outputs; n += kPanelOutputs) {
        const std::size_t p = (args.first_output + n) / kPanelOutputs;
        for (std::size_t m = 0; m < rows; m += kMaxRows) {
          const Task task{
              .from = &block,
              .row = m,
              .weights = weights.bytes + p * panel_bytes + first * kPanelBytes,
              .codes = last > first ? last - first : 0,
              .group_codes = args.scales.group / 4,
              .scales = scales_of(args.scales, p, begin * kBlockTrits / args.scales.group),
              .to = {.out = static_cast<float*>(args.out) + (row + m) * args.out_stride + n,
                     .stride = args.out_stride,
                     .left = args.outputs - n,
                     .first = c == 0}};
          switch (rows - m) {
            case 1:
              product<1>(task);
              break;
            case 2:
              product<2>(task);
              break;
            case 3:
              product<3>(task);
              break;
            default:
              product<4>(task);
          }
        }
      }
    }
  }
}

}  // namespace

void grouped_trit_matmul(const GroupedTritMatmulArgs& args) noexcept {
  if (args.wide || args.weights.layout != WeightLayout::kTritPairs) {
    return composed::grouped_trit_matmul(args, trit_matmul);
  }
  pairs(args);
}

}  // namespace tfmbs::kernels::neon
