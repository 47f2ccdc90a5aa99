// Rows of activations, a chunk of depths, in the order in which the weights' codes stand.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "int8_matmul/avx512_codes.hpp"
#include "panels.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr std::size_t kBlockRows = 64;  // that share a block of activations, at most
constexpr std::size_t kBlockBytes = std::size_t{1} << 16;  // on the stack

// Rows of a chunk of depths, padded with zeros to whole groups.
using Activations = ValueBlock<kBlockRows, kBlockBytes>;

// For quads, and for fives that are read as they are.
inline void stage(const Int8MatmulArgs& args, std::size_t row, std::size_t rows, std::size_t first,
                  std::size_t depths, Activations& to) {
  const __m512i ones = _mm512_set1_epi8(1);
  for (std::size_t m = 0; m < rows; ++m) {
    const std::int8_t* from = args.activations + (row + m) * args.row_stride + first;
    std::int8_t* values = to.values + m * to.stride;
    __m512i sum = _mm512_setzero_si512();
    for (std::size_t k = 0; k < to.stride; k += 64) {
      const __mmask64 valid = k + 64 <= depths ? ~__mmask64{0}
                              : k < depths     ? (__mmask64{1} << (depths - k)) - 1
                                               : 0;
      const __m512i bytes = _mm512_maskz_loadu_epi8(valid, from + k);
      sum = _mm512_dpbusd_epi32(sum, ones, bytes);
      const __mmask64 room =
          k + 64 <= to.stride ? ~__mmask64{0} : (__mmask64{1} << (to.stride - k)) - 1;
      _mm512_mask_storeu_epi8(values + k, room, bytes);
    }
    to.sums[m] = _mm512_reduce_add_epi32(sum);
  }
}

// For fives that are decoded: units of 80 depths, each with the four fifth trits' activations of
// its groups last, and zeros from there to the end of a row.
inline void stage_units(const Int8MatmulArgs& args, std::size_t row, std::size_t rows,
                        std::size_t first, std::size_t depths, Activations& to) {
  const __m512i ones = _mm512_set1_epi8(1);
  const __m512i four_each =
      _mm512_setr_epi32(0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18);
  const __m512i fifths = _mm512_setr_epi32(4, 9, 14, 19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  for (std::size_t m = 0; m < rows; ++m) {
    const std::int8_t* from = args.activations + (row + m) * args.row_stride + first;
    std::int8_t* values = to.values + m * to.stride;
    __m512i sum = _mm512_setzero_si512();
    std::size_t k = 0;
    for (; k < depths; k += kFiveUnitDepths) {
      const std::size_t left = depths - k;
      const __mmask64 valid = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
      const auto rest = static_cast<__mmask16>(left >= kFiveUnitDepths ? 0xFFFFU
                                               : left <= 64            ? 0U
                                                                       : (1U << (left - 64)) - 1);
      const __m512i low = _mm512_maskz_loadu_epi8(valid, from + k);
      const __m512i high = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(rest, from + k + 64));
      sum = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum, ones, low), ones,
                                _mm512_zextsi128_si512(_mm512_castsi512_si128(high)));
      _mm512_storeu_si512(values + k, _mm512_permutex2var_epi32(low, four_each, high));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(values + k + 64),
                       _mm512_castsi512_si128(_mm512_permutex2var_epi32(low, fifths, high)));
    }
    for (; k < to.stride; ++k) values[k] = 0;
    to.sums[m] = _mm512_reduce_add_epi32(sum);
  }
}

}  // namespace
}  // namespace tfmbs::kernels::avx512
