// Even and odd columns apart: a 32 x 32 -> 64-bit multiplication takes the even half of each lane.
#include <immintrin.h>

#include "operations.hpp"

namespace tfmbs::kernels::avx2 {

void weighted_sum(const WeightedSumArgs& args) noexcept {
  for (std::size_t r = 0; r < args.rows; ++r) {
    const std::uint16_t* weights = args.weights + r * args.size;
    __m256i even = _mm256_setzero_si256();
    __m256i odd = _mm256_setzero_si256();
    std::size_t k = 0;
    for (; k + 8 <= args.size; k += 8) {
      const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(args.values + k));
      const __m256i b =
          _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weights + k)));
      even = _mm256_add_epi64(even, _mm256_mul_epu32(a, b));
      odd = _mm256_add_epi64(odd,
                             _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32)));
    }
    alignas(32) std::uint64_t lanes[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), _mm256_add_epi64(even, odd));
    std::uint64_t sum = lanes[0] + lanes[1] + lanes[2] + lanes[3];
    for (; k < args.size; ++k) sum += std::uint64_t{args.values[k]} * weights[k];
    args.sums[r] = sum;
  }
}

}  // namespace tfmbs::kernels::avx2
