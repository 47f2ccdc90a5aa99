// What the 256-bit products of x86's sets share: how rows are staged, and where sums go. For files
// that are built with AVX2, everything in an anonymous namespace (docs/kernels.md, "One
// definition").
#pragma once

#include <immintrin.h>

#include "avx2_partial.hpp"
#include "int8_matmul/quads.hpp"

namespace tfmbs::kernels {
namespace {

constexpr std::size_t kHalves = 2;  // registers a line

inline __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
inline __m256i broadcast(const std::int8_t* four) {
  std::int32_t value = 0;
  __builtin_memcpy(&value, four, sizeof value);
  return _mm256_set1_epi32(value);
}

// Sixteen values of a row that has `left` more, then zeros. Not read past the row's end, for there
// may be none behind it.
inline __m128i load_values(const std::int8_t* from, std::size_t depth, std::size_t left) {
  if (left >= kGroup) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  if (left == 0) return _mm_setzero_si128();
  if (depth >= kGroup) {  // the row's last sixteen, those that are taken already shifted out
    alignas(32) static constexpr std::int8_t kFrom[32] = {
        0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    const __m128i last = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + left - kGroup));
    return _mm_shuffle_epi8(
        last, _mm_loadu_si128(reinterpret_cast<const __m128i*>(kFrom + kGroup - left)));
  }
  std::int8_t few[kGroup] = {};
  __builtin_memcpy(few, from, left);
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(few));
}

inline void stage(const Int8MatmulArgs& args, std::size_t row, std::size_t rows, std::size_t first,
                  std::size_t depths, Activations& to) {
  const __m128i flip = _mm_set1_epi8(-128);  // to v + 128, which vpsadbw can add up
  for (std::size_t m = 0; m < rows; ++m) {
    const std::int8_t* from = args.activations + (row + m) * args.row_stride + first;
    std::int8_t* values = to.values + m * to.stride;
    __m128i sum = _mm_setzero_si128();
    for (std::size_t k = 0; k < to.stride; k += kGroup) {
      const std::size_t left = k < depths ? depths - k : 0;
      const __m128i bytes = load_values(from + k, depths, left);
      _mm_store_si128(reinterpret_cast<__m128i*>(values + k), bytes);
      sum = _mm_add_epi64(sum, _mm_sad_epu8(_mm_xor_si128(bytes, flip), _mm_setzero_si128()));
    }
    const std::int64_t total = _mm_cvtsi128_si64(sum) + _mm_extract_epi64(sum, 1);
    to.sums[m] = static_cast<std::int32_t>(total - static_cast<std::int64_t>(128 * to.stride));
  }
}

inline void store(const Output& to, std::size_t m, std::size_t half, __m256i sum,
                  std::int32_t offset) {
  const std::size_t at = half * 8;
  if (at >= to.left) return;
  std::int32_t* out = to.out + m * to.stride + at;
  sum = _mm256_sub_epi32(sum, _mm256_set1_epi32(offset));
  avx2::put_sums(out, sum, to.left - at, to.first);
}

}  // namespace
}  // namespace tfmbs::kernels
