#include <immintrin.h>

#include "fingerprint/lanes.hpp"
#include "operations.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

// AVX2 has no product of 64-bit lanes: three of 32 bits give its low half.
inline __m256i absorb_four(__m256i lanes, const unsigned char* words, __m256i low, __m256i high) {
  const __m256i x =
      _mm256_xor_si256(lanes, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words)));
  const __m256i crossed =
      _mm256_add_epi64(_mm256_mul_epu32(_mm256_srli_epi64(x, 32), low), _mm256_mul_epu32(x, high));
  const __m256i product =
      _mm256_add_epi64(_mm256_mul_epu32(x, low), _mm256_slli_epi64(crossed, 32));
  return _mm256_xor_si256(product, _mm256_srli_epi64(product, kHashShift));
}

}  // namespace

std::uint64_t fingerprint(const void* data, std::size_t bytes) noexcept {
  const unsigned char* cursor = byte_offset(data, 0);
  alignas(32) std::uint64_t lanes[kHashLanes];
  start_lanes(lanes);
  const __m256i low = _mm256_set1_epi64x(static_cast<long long>(kHashMultiplier & 0xFFFFFFFF));
  const __m256i high = _mm256_set1_epi64x(static_cast<long long>(kHashMultiplier >> 32));
  auto* const stored = reinterpret_cast<__m256i*>(lanes);
  __m256i a = _mm256_load_si256(stored);
  __m256i b = _mm256_load_si256(stored + 1);
  __m256i c = _mm256_load_si256(stored + 2);
  __m256i d = _mm256_load_si256(stored + 3);
  for (std::size_t left = bytes; left >= kHashStride; left -= kHashStride, cursor += kHashStride) {
    a = absorb_four(a, cursor, low, high);
    b = absorb_four(b, cursor + 32, low, high);
    c = absorb_four(c, cursor + 64, low, high);
    d = absorb_four(d, cursor + 96, low, high);
  }
  _mm256_store_si256(stored, a);
  _mm256_store_si256(stored + 1, b);
  _mm256_store_si256(stored + 2, c);
  _mm256_store_si256(stored + 3, d);
  return finish_lanes(lanes, cursor, bytes);
}

}  // namespace tfmbs::kernels::avx2
