// Tables look up the products of pairs of trits (neon_pairs.hpp); their sums are collected in
// bytes, and in words of 16 bits, a chunk of depths.
#include <arm_neon.h>

#include "operations.hpp"
#include "panels.hpp"
#include "trit_matmul/neon_pairs.hpp"

namespace tfmbs::kernels::neon {
namespace {

// A word collects the sums of a chunk.
static_assert(kChunkCodes * 4 * kBias <= 0xFFFF);

// Eight sums of row m, from output `at` on.
inline void store(const Output& to, std::size_t m, std::size_t at, uint16x8_t words, int bias) {
  if (at >= to.left) return;
  std::int32_t* out = to.out + m * to.stride + at;
  const int32x4_t offset = vdupq_n_s32(bias);
  int32x4_t sums[2] = {vsubq_s32(vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(words))), offset),
                       vsubq_s32(vreinterpretq_s32_u32(vmovl_high_u16(words)), offset)};
  if (to.left - at >= 8) {
    for (std::size_t h = 0; h < 2; ++h) {
      if (!to.first) sums[h] = vaddq_s32(sums[h], vld1q_s32(out + 4 * h));
      vst1q_s32(out + 4 * h, sums[h]);
    }
    return;
  }
  std::int32_t lanes[8];
  vst1q_s32(lanes, sums[0]);
  vst1q_s32(lanes + 4, sums[1]);
  for (std::size_t n = 0; n < to.left - at; ++n) out[n] = to.first ? lanes[n] : out[n] + lanes[n];
}

// kRows rows times one panel.
template <std::size_t kRows>
__attribute__((noinline)) void product(const Activations& from, std::size_t row,
                                       const std::uint8_t* weights, std::size_t codes,
                                       const Output& to) {
  // Bytes further on, so that weights from memory arrive in time; beyond the end it is harmless.
  constexpr std::size_t kAhead = 4096;
  const uint8x16_t nibble = vdupq_n_u8(15);
  uint16x8_t sums[kRows][kRegisters][2];
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t r = 0; r < kRegisters; ++r) sums[m][r][0] = sums[m][r][1] = vdupq_n_u16(0);
  }
  for (std::size_t first = 0; first < codes; first += kRun) {
    const std::size_t end = codes - first < kRun ? codes : first + kRun;
    uint8x16_t bytes[kRows][kRegisters];
#pragma GCC unroll 4
    for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
      for (std::size_t r = 0; r < kRegisters; ++r) bytes[m][r] = vdupq_n_u8(0);
    }
    for (std::size_t g = first; g < end; ++g) {
      const std::uint8_t* at = weights + g * kPanelBytes;
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
        const std::uint8_t code = from.codes[row + m][g];
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
        sums[m][r][0] = vaddw_u8(sums[m][r][0], vget_low_u8(bytes[m][r]));
        sums[m][r][1] = vaddw_high_u8(sums[m][r][1], bytes[m][r]);
      }
    }
  }
  const int bias = 2 * kBias * static_cast<int>(codes);
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t r = 0; r < kRegisters; ++r) {
      store(to, m, 16 * r, sums[m][r][0], bias);
      store(to, m, 16 * r + 8, sums[m][r][1], bias);
    }
  }
}

void pairs(const TritMatmulArgs& args) {
  const WeightPanelsView& weights = args.weights;
  const std::size_t blocks = (weights.depth + kBlockTrits - 1) / kBlockTrits;
  const std::size_t groups = (weights.depth + 3) / 4;
  const std::size_t panel_bytes = groups * kPanelBytes;
  const std::size_t chunks = blocks == 0 ? 1 : (blocks + kChunkBlocks - 1) / kChunkBlocks;
  const std::size_t chunk = (blocks + chunks - 1) / chunks;
  const std::uint8_t* panels = weights.bytes + args.first_output / kPanelOutputs * panel_bytes;
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
      const std::size_t last = end * kBlockCodes < groups ? end * kBlockCodes : groups;
      const std::size_t codes = last > first ? last - first : 0;
      for (std::size_t n = 0; n < args.outputs; n += kPanelOutputs) {
        const std::uint8_t* from = panels + n / kPanelOutputs * panel_bytes + first * kPanelBytes;
        for (std::size_t m = 0; m < rows; m += kMaxRows) {
          const Output to{.out = args.out + (row + m) * args.out_stride + n,
                          .stride = args.out_stride,
                          .left = args.outputs - n,
                          .first = c == 0};
          switch (rows - m) {
            case 1:
              product<1>(block, m, from, codes, to);
              break;
            case 2:
              product<2>(block, m, from, codes, to);
              break;
            case 3:
              product<3>(block, m, from, codes, to);
              break;
            default:
              product<4>(block, m, from, codes, to);
          }
        }
      }
    }
  }
}

}  // namespace

void trit_matmul(const TritMatmulArgs& args) noexcept {
  if (args.weights.layout == WeightLayout::kTritPairs) return pairs(args);
  portable::trit_matmul(args);
}

}  // namespace tfmbs::kernels::neon
