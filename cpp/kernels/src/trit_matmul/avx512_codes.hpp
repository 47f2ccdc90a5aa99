// What AVX-512's products of trits share: four activations of a row pick a table of 128 bytes, in
// which a byte of weights looks up the sum of its four products. One byte permutation does that for
// 64 outputs. Everything is in an anonymous namespace (docs/kernels.md, "One definition").
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "panels.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr std::size_t kCodes = 81;
constexpr int kBias = 4;  // makes a sum of four products unsigned, 0...8
// Sums of bytes: 31 * 8 = 248. They are added up as 16-bit words before a byte can overflow.
constexpr std::size_t kRun = 31;
constexpr std::size_t kMaxRows = 4;     // whose sums stay in registers
constexpr std::size_t kBlockRows = 32;  // that share a block of activations
constexpr std::size_t kBlockCodes = kBlockTrits / 4;
constexpr std::size_t kChunkBlocks = 16;
constexpr std::size_t kChunkCodes = kChunkBlocks * kBlockCodes;

// entries[a][w]: the sum of the products of two codes' trits, biased.
alignas(64) constexpr struct Products {
  std::uint8_t entries[kCodes][128];
} kProducts = [] {
  Products products{};
  for (int a = 0; a < 81; ++a) {
    for (int w = 0; w < 81; ++w) {
      int sum = kBias;
      for (int i = 0, power = 1; i < 4; ++i, power *= 3) {
        sum += (a / power % 3 - 1) * (w / power % 3 - 1);
      }
      products.entries[a][w] = static_cast<std::uint8_t>(sum);
    }
  }
  return products;
}();

// The code of each low nibble. A trit is its bit of `nonzero` minus twice that of `negative`, so a
// code is 40 plus the sum of 3^i over the bits of one nibble minus twice that of the other.
inline __m512i codes_of(__m512i nonzero, __m512i negative) {
  const __m512i sums = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, 1, 3, 4, 9, 10, 12, 13, 27, 28, 30, 31, 36, 37, 39, 40));
  const __m512i nibble = _mm512_set1_epi8(15);
  const __m512i plus = _mm512_shuffle_epi8(sums, _mm512_and_si512(nonzero, nibble));
  const __m512i minus = _mm512_shuffle_epi8(sums, _mm512_and_si512(negative, nibble));
  return _mm512_sub_epi8(_mm512_add_epi8(plus, _mm512_set1_epi8(40)),
                         _mm512_add_epi8(minus, minus));
}

// The codes of a block of 512 trits.
inline void encode(const std::uint64_t* block, std::uint8_t* codes) {
  const __m512i nonzero = _mm512_loadu_si512(block);
  const __m512i negative = _mm512_loadu_si512(block + kPlaneWords);
  const __m512i halves[2] = {codes_of(nonzero, negative), codes_of(_mm512_srli_epi16(nonzero, 4),
                                                                   _mm512_srli_epi16(negative, 4))};
  // Low and high nibbles alternate; the unpacking works inside 128-bit lanes.
  const __m512i even = _mm512_unpacklo_epi8(halves[0], halves[1]);
  const __m512i odd = _mm512_unpackhi_epi8(halves[0], halves[1]);
  const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  _mm512_store_si512(codes, _mm512_permutex2var_epi64(even, low, odd));
  _mm512_store_si512(codes + 64, _mm512_permutex2var_epi64(even, high, odd));
}

// Rows of a chunk of depths.
using Activations = CodeBlock<kBlockRows, kChunkCodes>;

}  // namespace
}  // namespace tfmbs::kernels::avx512
