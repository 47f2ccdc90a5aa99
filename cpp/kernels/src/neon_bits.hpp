// From lanes to bits, which ARM has no instruction for. Everything is in an anonymous namespace
// (docs/kernels.md, "One definition").
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace tfmbs::kernels {
namespace {

// Bit i of the result is set where byte i of the four registers, each 0 or 255, is not zero.
inline std::uint64_t bits_of_masks(uint8x16_t a, uint8x16_t b, uint8x16_t c, uint8x16_t d) {
  const uint8x16_t select = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
  const uint8x16_t low = vpaddq_u8(vandq_u8(a, select), vandq_u8(b, select));
  const uint8x16_t high = vpaddq_u8(vandq_u8(c, select), vandq_u8(d, select));
  const uint8x16_t quarters = vpaddq_u8(low, high);
  return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(quarters, quarters)), 0);
}

}  // namespace
}  // namespace tfmbs::kernels
