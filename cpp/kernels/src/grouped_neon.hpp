// Sums of fp32 in and out, for ARM's grouped products. Everything is in an anonymous namespace
// (docs/kernels.md, "One definition").
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "grouped_sums.hpp"

namespace tfmbs::kernels {
namespace {

constexpr std::size_t kFloats = 4;  // of a register

// Four sums of row m from output `at` on; those that are not there to write are anything.
inline float32x4_t load_sums(const ScaledOutput& to, std::size_t m, std::size_t at) {
  if (to.first || at >= to.left) return vdupq_n_f32(0);
  const float* from = to.out + m * to.stride + at;
  if (to.left - at >= kFloats) return vld1q_f32(from);
  float lanes[kFloats] = {};
  for (std::size_t n = 0; n < to.left - at; ++n) lanes[n] = from[n];
  return vld1q_f32(lanes);
}

inline void store_sums(const ScaledOutput& to, std::size_t m, std::size_t at, float32x4_t sums) {
  if (at >= to.left) return;
  float* out = to.out + m * to.stride + at;
  if (to.left - at >= kFloats) return vst1q_f32(out, sums);
  float lanes[kFloats];
  vst1q_f32(lanes, sums);
  for (std::size_t n = 0; n < to.left - at; ++n) out[n] = lanes[n];
}

// The end of a group. Not a fused multiply-add, which would round once where two roundings are due.
inline float32x4_t add_group(float32x4_t sums, int32x4_t group, const float* scales) {
  return vaddq_f32(sums, vmulq_f32(vcvtq_f32_s32(group), vld1q_f32(scales)));
}

}  // namespace
}  // namespace tfmbs::kernels
