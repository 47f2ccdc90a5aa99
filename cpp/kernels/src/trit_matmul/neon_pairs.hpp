// What NEON's products of trits share: two activations of a row pick a table of 16 bytes, in which
// a nibble of weights looks up the sum of its two products. One table look-up does that for 16
// outputs. Everything is in an anonymous namespace (docs/kernels.md, "One definition").
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "panels.hpp"

namespace tfmbs::kernels::neon {
namespace {

constexpr int kBias = 2;  // makes a sum of two products unsigned, 0...4
// Sums of bytes: 31 * 2 * 4 = 248. They are widened before a byte can overflow.
constexpr std::size_t kRun = 31;
static_assert(kRun * 2 * 2 * kBias <= 0xFF);
constexpr std::size_t kMaxRows = 4;     // whose sums stay in registers
constexpr std::size_t kBlockRows = 32;  // that share a block of activations
constexpr std::size_t kBlockCodes = kBlockTrits / 4;
constexpr std::size_t kChunkBlocks = 16;
constexpr std::size_t kChunkCodes = kChunkBlocks * kBlockCodes;
constexpr std::size_t kRegisters = kPanelBytes / 16;

// entries[a][w]: the sum of the products of two pairs of trits, biased.
alignas(16) constexpr struct Products {
  std::uint8_t entries[16][16];
} kProducts = [] {
  Products products{};
  for (int a = 0; a < 9; ++a) {
    for (int w = 0; w < 9; ++w) {
      const int sum = kBias + (a % 3 - 1) * (w % 3 - 1) + (a / 3 - 1) * (w / 3 - 1);
      products.entries[a][w] = static_cast<std::uint8_t>(sum);
    }
  }
  return products;
}();

// The codes of 128 trits: as weights, two pairs a byte. A trit is its bit of `nonzero` minus twice
// that of `negative`, and so are the codes, above the code of zeros.
inline void encode(const std::uint64_t* words, std::uint8_t* codes) {
  constexpr std::uint8_t kSums[16] = {0x00, 0x01, 0x03, 0x04, 0x10, 0x11, 0x13, 0x14,
                                      0x30, 0x31, 0x33, 0x34, 0x40, 0x41, 0x43, 0x44};
  const uint8x16_t sums = vld1q_u8(kSums);
  const uint8x16_t nibble = vdupq_n_u8(15);
  const uint8x16_t nonzero = vreinterpretq_u8_u64(vld1q_u64(words));
  const uint8x16_t negative = vreinterpretq_u8_u64(vld1q_u64(words + kPlaneWords));
  uint8x16_t halves[2];
  for (std::size_t h = 0; h < 2; ++h) {
    const uint8x16_t x = h == 0 ? vandq_u8(nonzero, nibble) : vshrq_n_u8(nonzero, 4);
    const uint8x16_t s = h == 0 ? vandq_u8(negative, nibble) : vshrq_n_u8(negative, 4);
    const uint8x16_t plus = vqtbl1q_u8(sums, x);
    const uint8x16_t minus = vqtbl1q_u8(sums, s);
    halves[h] = vsubq_u8(vaddq_u8(plus, vdupq_n_u8(0x44)), vaddq_u8(minus, minus));
  }
  vst1q_u8(codes, vzip1q_u8(halves[0], halves[1]));
  vst1q_u8(codes + 16, vzip2q_u8(halves[0], halves[1]));
}

using Activations = CodeBlock<kBlockRows, kChunkCodes>;

}  // namespace
}  // namespace tfmbs::kernels::neon
