// As the AVX2 form, sixteen columns at a time; the tail is a masked load.
#include <immintrin.h>

#include "operations.hpp"

namespace tfmbs::kernels::avx512 {

void weighted_sum(const WeightedSumArgs& args) noexcept {
  for (std::size_t r = 0; r < args.rows; ++r) {
    const std::uint32_t* weights = args.weights + r * args.size;
    __m512i even = _mm512_setzero_si512();
    __m512i odd = _mm512_setzero_si512();
    for (std::size_t k = 0; k < args.size; k += 16) {
      const std::size_t left = args.size - k;
      const auto mask =
          left >= 16 ? static_cast<__mmask16>(0xFFFF) : static_cast<__mmask16>((1U << left) - 1);
      const __m512i a = _mm512_maskz_loadu_epi32(mask, args.values + k);
      const __m512i b = _mm512_maskz_loadu_epi32(mask, weights + k);
      even = _mm512_add_epi64(even, _mm512_mul_epu32(a, b));
      odd = _mm512_add_epi64(odd,
                             _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32)));
    }
    alignas(64) std::uint64_t lanes[8];
    _mm512_store_si512(lanes, _mm512_add_epi64(even, odd));
    std::uint64_t sum = 0;
    for (const std::uint64_t lane : lanes) sum += lane;
    args.sums[r] = sum;
  }
}

}  // namespace tfmbs::kernels::avx512
