// The first few of a vector's eight words, for the ends of rows. For files that are built with
// AVX2, and not with AVX-512.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace tfmbs::kernels::avx2 {
namespace {

inline __m256i first_words(std::size_t left) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(left)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// `left` words, then zeros; the rest is not read.
inline __m256i load_words(const void* from, std::size_t left) {
  if (left >= 8) return _mm256_loadu_si256(static_cast<const __m256i*>(from));
  return _mm256_maskload_epi32(static_cast<const int*>(from), first_words(left));
}

// In pieces: a masked store takes a dozen cycles on some CPUs.
inline void store_words(std::int32_t* out, __m256i words, std::size_t left) {
  if (left >= 8) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), words);
  __m128i rest = _mm256_castsi256_si128(words);
  if ((left & 4) != 0) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), rest);
    rest = _mm256_extracti128_si256(words, 1);
    out += 4;
  }
  if ((left & 2) != 0) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out), rest);
    rest = _mm_unpackhi_epi64(rest, rest);
    out += 2;
  }
  if ((left & 1) != 0) *out = _mm_cvtsi128_si32(rest);
}

// Writes eight sums, or adds them to what is there; `left` of them, if they are fewer.
inline void put_sums(std::int32_t* out, __m256i sums, std::size_t left, bool first) {
  if (!first) sums = _mm256_add_epi32(sums, load_words(out, left));
  store_words(out, sums, left);
}

}  // namespace
}  // namespace tfmbs::kernels::avx2
