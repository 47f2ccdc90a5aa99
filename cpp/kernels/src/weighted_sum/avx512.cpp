// Values and weights below 2^15 are pairs of 16-bit numbers with a zero each, so one dot-product
// instruction multiplies and adds sixteen columns in 32 bits; whether these were wide enough is
// known from the bits that occurred. Otherwise as the AVX2 form.
#include <immintrin.h>

#include "operations.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

inline __mmask16 columns_from(std::size_t k, std::size_t size) {
  const std::size_t left = size - k;
  return left >= 16 ? static_cast<__mmask16>(0xFFFF) : static_cast<__mmask16>((1U << left) - 1);
}

// False where 32 bits might not hold a lane's sum.
inline bool narrow_sum(const std::uint32_t* values, const std::uint32_t* weights, std::size_t size,
                       std::uint64_t* sum) {
  __m512i sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  __m512i value_bits = _mm512_setzero_si512();
  __m512i weight_bits = _mm512_setzero_si512();
  std::size_t k = 0;
  for (; k + 32 <= size; k += 32) {
    for (std::size_t i = 0; i < 2; ++i) {
      const __m512i a = _mm512_loadu_si512(values + k + 16 * i);
      const __m512i b = _mm512_loadu_si512(weights + k + 16 * i);
      value_bits = _mm512_or_si512(value_bits, a);
      weight_bits = _mm512_or_si512(weight_bits, b);
      sums[i] = _mm512_dpwssd_epi32(sums[i], a, b);
    }
  }
  for (; k < size; k += 16) {
    const __mmask16 columns = columns_from(k, size);
    const __m512i a = _mm512_maskz_loadu_epi32(columns, values + k);
    const __m512i b = _mm512_maskz_loadu_epi32(columns, weights + k);
    value_bits = _mm512_or_si512(value_bits, a);
    weight_bits = _mm512_or_si512(weight_bits, b);
    sums[0] = _mm512_dpwssd_epi32(sums[0], a, b);
  }
  const std::uint64_t most_value = static_cast<std::uint32_t>(_mm512_reduce_or_epi32(value_bits));
  const std::uint64_t most_weight = static_cast<std::uint32_t>(_mm512_reduce_or_epi32(weight_bits));
  if (most_value >= 1U << 15 || most_weight >= 1U << 15) return false;
  // A lane's products, and that of both sums together.
  const std::uint64_t products = size / 16 + 1;
  if (products > 0xFFFFFFFF / (most_value * most_weight + 1)) return false;
  const __m512i total = _mm512_add_epi32(sums[0], sums[1]);
  *sum = static_cast<std::uint64_t>(_mm512_reduce_add_epi64(
      _mm512_add_epi64(_mm512_cvtepu32_epi64(_mm512_castsi512_si256(total)),
                       _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(total, 1)))));
  return true;
}

inline std::uint64_t wide_sum(const std::uint32_t* values, const std::uint32_t* weights,
                              std::size_t size) {
  __m512i even = _mm512_setzero_si512();
  __m512i odd = _mm512_setzero_si512();
  for (std::size_t k = 0; k < size; k += 16) {
    const __mmask16 columns = columns_from(k, size);
    const __m512i a = _mm512_maskz_loadu_epi32(columns, values + k);
    const __m512i b = _mm512_maskz_loadu_epi32(columns, weights + k);
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
  for (std::size_t r = 0; r < args.rows; ++r) {
    const std::uint32_t* weights = args.weights + r * args.size;
    if (!narrow_sum(args.values, weights, args.size, args.sums + r)) {
      args.sums[r] = wide_sum(args.values, weights, args.size);
    }
  }
}

}  // namespace tfmbs::kernels::avx512
