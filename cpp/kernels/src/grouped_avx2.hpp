// Sums of fp32 in and out, for the grouped products that are built with AVX2, and not with AVX-512.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "avx2_partial.hpp"
#include "grouped_sums.hpp"

namespace tfmbs::kernels {
namespace {

constexpr std::size_t kFloats = 8;  // of a register

// Eight sums of row m from output `at` on; those that are not there to write are anything.
inline __m256 load_sums(const ScaledOutput& to, std::size_t m, std::size_t at) {
  if (to.first || at >= to.left) return _mm256_setzero_ps();
  const float* from = to.out + m * to.stride + at;
  if (to.left - at >= kFloats) return _mm256_loadu_ps(from);
  return _mm256_maskload_ps(from, avx2::first_words(to.left - at));
}

inline void store_sums(const ScaledOutput& to, std::size_t m, std::size_t at, __m256 sums) {
  if (at >= to.left) return;
  float* out = to.out + m * to.stride + at;
  const std::size_t left = to.left - at;
  if (left >= kFloats) return _mm256_storeu_ps(out, sums);
  __m128 rest = _mm256_castps256_ps128(sums);
  if ((left & 4) != 0) {
    _mm_storeu_ps(out, rest);
    rest = _mm256_extractf128_ps(sums, 1);
    out += 4;
  }
  if ((left & 2) != 0) {
    _mm_storel_pi(reinterpret_cast<__m64*>(out), rest);
    rest = _mm_movehl_ps(rest, rest);
    out += 2;
  }
  if ((left & 1) != 0) _mm_store_ss(out, rest);
}

}  // namespace
}  // namespace tfmbs::kernels
