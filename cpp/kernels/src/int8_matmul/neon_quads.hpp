// What the products of ARM's sets share: how rows are staged, a byte's codes, and where sums go.
// Everything is in an anonymous namespace (docs/kernels.md, "One definition").
#pragma once

#include <arm_neon.h>

#include "int8_matmul/quads.hpp"

namespace tfmbs::kernels {
namespace {

constexpr std::size_t kRegisterOutputs = 4;
constexpr std::size_t kLineRegisters = kLineOutputs / kRegisterOutputs;

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

}  // namespace
}  // namespace tfmbs::kernels
