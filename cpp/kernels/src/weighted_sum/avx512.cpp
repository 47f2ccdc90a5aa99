// Values and weights below 2^15 are multiplied as pairs of 16-bit numbers, one dot-product
// instruction for 32 columns; whether these and the sums' 32 bits were wide enough is known from
// the bits that occurred. Otherwise as the AVX2 form.
#include <immintrin.h>

#include "operations.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr std::size_t kRows = 4;  // that share the values' conversion

inline __mmask16 columns_from(std::size_t k, std::size_t size) {
  const std::size_t left = size > k ? size - k : 0;
  return left >= 16 ? static_cast<__mmask16>(0xFFFF) : static_cast<__mmask16>((1U << left) - 1);
}

struct Narrow {
  __m512i sums[kRows];
  __m512i value_bits{_mm512_setzero_si512()};
  __m512i weight_bits{_mm512_setzero_si512()};
};

template <std::size_t kCount>
inline __attribute__((always_inline)) void add_columns(const std::uint32_t* values,
                                                       const std::uint16_t* weights,
                                                       std::size_t row_stride, __mmask16 low,
                                                       __mmask16 high, Narrow& to) {
  const __m512i a = _mm512_maskz_loadu_epi32(low, values);
  const __m512i b =
      high == 0 ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi32(high, values + 16);
  to.value_bits = _mm512_or_si512(to.value_bits, _mm512_or_si512(a, b));
  const __m512i pairs = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(a)),
                                           _mm512_cvtepi32_epi16(b), 1);
  const auto columns = static_cast<__mmask32>(low | static_cast<std::uint32_t>(high) << 16);
#pragma GCC unroll 4
  for (std::size_t r = 0; r < kCount; ++r) {
    const __m512i w = _mm512_maskz_loadu_epi16(columns, weights + r * row_stride);
    to.weight_bits = _mm512_or_si512(to.weight_bits, w);
    to.sums[r] = _mm512_dpwssd_epi32(to.sums[r], pairs, w);
  }
}

// False, with nothing written, where 16 or 32 bits might not hold the numbers.
template <std::size_t kCount>
bool narrow_sums(const WeightedSumArgs& args, std::size_t row) {
  const std::uint16_t* weights = args.weights + row * args.size;
  Narrow found;
  for (__m512i& sum : found.sums) sum = _mm512_setzero_si512();
  std::size_t k = 0;
  for (; k + 32 <= args.size; k += 32) {
    add_columns<kCount>(args.values + k, weights + k, args.size, 0xFFFF, 0xFFFF, found);
  }
  if (k < args.size) {
    add_columns<kCount>(args.values + k, weights + k, args.size, columns_from(k, args.size),
                        columns_from(k + 16, args.size), found);
  }
  const std::uint64_t most_value =
      static_cast<std::uint32_t>(_mm512_reduce_or_epi32(found.value_bits));
  const auto both = static_cast<std::uint32_t>(_mm512_reduce_or_epi32(found.weight_bits));
  const std::uint64_t most_weight = (both | both >> 16) & 0xFFFF;
  if (most_value >= 1U << 15 || most_weight >= 1U << 15) return false;
  // Two a step and dword.
  const std::uint64_t products = args.size / 16 + 2;
  if (products > 0xFFFFFFFF / (most_value * most_weight + 1)) return false;
  for (std::size_t r = 0; r < kCount; ++r) {
    const __m512i total = found.sums[r];
    args.sums[row + r] = static_cast<std::uint64_t>(_mm512_reduce_add_epi64(
        _mm512_add_epi64(_mm512_cvtepu32_epi64(_mm512_castsi512_si256(total)),
                         _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(total, 1)))));
  }
  return true;
}

inline std::uint64_t wide_sum(const std::uint32_t* values, const std::uint16_t* weights,
                              std::size_t size) {
  __m512i even = _mm512_setzero_si512();
  __m512i odd = _mm512_setzero_si512();
  for (std::size_t k = 0; k < size; k += 16) {
    const __mmask16 columns = columns_from(k, size);
    const __m512i a = _mm512_maskz_loadu_epi32(columns, values + k);
    const __m512i b = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(columns, weights + k));
    even = _mm512_add_epi64(even, _mm512_mul_epu32(a, b));
    odd =
        _mm512_add_epi64(odd, _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32)));
  }
  // Modulo 2^64: not the intrinsic's reduction, whose last additions are of signed integers.
  alignas(64) std::uint64_t lanes[8];
  _mm512_store_si512(lanes, _mm512_add_epi64(even, odd));
  std::uint64_t sum = 0;
  for (const std::uint64_t lane : lanes) sum += lane;
  return sum;
}

}  // namespace

void weighted_sum(const WeightedSumArgs& args) noexcept {
  for (std::size_t r = 0; r < args.rows;) {
    const std::size_t count = args.rows - r >= kRows ? kRows : 1;
    if (!(count == kRows ? narrow_sums<kRows>(args, r) : narrow_sums<1>(args, r))) {
      for (std::size_t i = r; i < r + count; ++i) {
        args.sums[i] = wide_sum(args.values, args.weights + i * args.size, args.size);
      }
    }
    r += count;
  }
}

}  // namespace tfmbs::kernels::avx512
