// Eight fp32 lanes, as the compiler's vector type: one instruction with AVX2, two with SSE2 or
// NEON, and the same bits everywhere, for nothing is fused or reordered. Everything is in an
// anonymous namespace, as in scalar.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "scalar.hpp"

#if defined(__GNUC__)
// Every function here is inlined, so no vector is passed as the warning fears.
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

namespace tfmbs::kernels {
namespace {

using Lanes = float __attribute__((vector_size(32)));
using IntLanes = std::int32_t __attribute__((vector_size(32)));
using WordLanes = std::uint32_t __attribute__((vector_size(32)));
using HalfLanes = std::uint16_t __attribute__((vector_size(16)));
static_assert(sizeof(Lanes) == kFloatLanes * sizeof(float));

template <typename To, typename From>
[[gnu::always_inline]] inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

[[gnu::always_inline]] inline Lanes all_lanes(float value) {
  return Lanes{value, value, value, value, value, value, value, value};
}

// kType is kFloat32 or kBFloat16.
template <FloatType kType>
[[gnu::always_inline]] inline Lanes load_lanes(const void* base, std::size_t i) {
  const unsigned char* from = byte_offset(base, i * (kType == FloatType::kFloat32 ? 4 : 2));
  if constexpr (kType == FloatType::kFloat32) {
    Lanes lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
  } else {
    HalfLanes halves;
    std::memcpy(&halves, from, sizeof halves);
    return bits_as<Lanes>(__builtin_convertvector(halves, WordLanes) << 16);
  }
}

// The bf16 values of lanes, to nearest, ties to even; NaN becomes the one NaN.
[[gnu::always_inline]] inline WordLanes bfloat16_words(Lanes lanes) {
  const auto bits = bits_as<WordLanes>(lanes);
  const auto rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const auto is_nan = bits_as<WordLanes>((bits & 0x7FFFFFFFU) > 0x7F800000U);
  return (rounded & ~is_nan) | (0x7FC0U & is_nan);
}

// Rounded to kType, and again fp32.
template <FloatType kType>
[[gnu::always_inline]] inline Lanes rounded_to(Lanes lanes) {
  if constexpr (kType == FloatType::kFloat32) return lanes;
  return bits_as<Lanes>(bfloat16_words(lanes) << 16);
}

template <FloatType kType>
[[gnu::always_inline]] inline void store_lanes(void* base, std::size_t i, Lanes lanes) {
  unsigned char* to = byte_offset(base, i * (kType == FloatType::kFloat32 ? 4 : 2));
  if constexpr (kType == FloatType::kFloat32) {
    std::memcpy(to, &lanes, sizeof lanes);
  } else {
    const auto halves = __builtin_convertvector(bfloat16_words(lanes), HalfLanes);
    std::memcpy(to, &halves, sizeof halves);
  }
}

// The first `count` < kFloatLanes values; the other lanes are 0.
template <FloatType kType>
[[gnu::always_inline]] inline Lanes load_rest(const void* base, std::size_t i, std::size_t count) {
  constexpr std::size_t kBytes = kType == FloatType::kFloat32 ? 4 : 2;
  unsigned char whole[32] = {};
  std::memcpy(whole, byte_offset(base, i * kBytes), count * kBytes);
  return load_lanes<kType>(whole, 0);
}
template <FloatType kType>
[[gnu::always_inline]] inline void store_rest(void* base, std::size_t i, std::size_t count,
                                              Lanes lanes) {
  constexpr std::size_t kBytes = kType == FloatType::kFloat32 ? 4 : 2;
  unsigned char whole[32];
  store_lanes<kType>(whole, 0, lanes);
  std::memcpy(byte_offset(base, i * kBytes), whole, count * kBytes);
}

// ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7))
[[gnu::always_inline]] inline float sum_of_lanes(Lanes lanes) {
  float values[kFloatLanes];
  std::memcpy(values, &lanes, sizeof values);
  const float a = values[0] + values[4];
  const float b = values[1] + values[5];
  const float c = values[2] + values[6];
  const float d = values[3] + values[7];
  return (a + c) + (b + d);
}

// e^x within 2 units in the last place for -87 <= x <= 88; 0 below, e^88 above; NaN stays.
// Cody and Waite's reduction x = n ln 2 + r, |r| <= ln 2 / 2, and the minimax polynomial of Cephes'
// expf for e^r.
[[gnu::always_inline]] inline Lanes exp_lanes(Lanes x) {
  const Lanes most = all_lanes(88.0F);
  const Lanes least = all_lanes(-87.0F);
  const IntLanes too_low = x < least;
  Lanes y =
      bits_as<Lanes>((bits_as<IntLanes>(most) & (x > most)) | (bits_as<IntLanes>(x) & ~(x > most)));
  y = bits_as<Lanes>(bits_as<IntLanes>(y) & ~too_low);
  // Adding and taking away 1.5 * 2^23 rounds to an integer.
  const Lanes shift = all_lanes(12582912.0F);
  const Lanes n = (y * 1.44269504088896341F + shift) - shift;
  const Lanes r = (y - n * 0.693359375F) - n * -2.12194440e-4F;
  Lanes p = r * 1.9875691500e-4F + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;
  // A NaN's n is none: its sum below is a NaN whatever the power is.
  const IntLanes is_nan = x != x;
  const Lanes whole = bits_as<Lanes>(bits_as<IntLanes>(n) & ~is_nan);
  const IntLanes power = (__builtin_convertvector(whole, IntLanes) + 127) << 23;
  const Lanes result = p * bits_as<Lanes>(power);
  return bits_as<Lanes>(bits_as<IntLanes>(result) & ~too_low);
}

}  // namespace
}  // namespace tfmbs::kernels
