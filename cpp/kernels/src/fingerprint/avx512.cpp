#include <immintrin.h>

#include "fingerprint/lanes.hpp"
#include "operations.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

inline __m512i absorb_eight(__m512i lanes, const unsigned char* words, __m512i multiplier) {
  const __m512i product =
      _mm512_mullo_epi64(_mm512_xor_si512(lanes, _mm512_loadu_si512(words)), multiplier);
  return _mm512_xor_si512(product, _mm512_srli_epi64(product, kHashShift));
}

}  // namespace

std::uint64_t fingerprint(const void* data, std::size_t bytes) noexcept {
  const unsigned char* cursor = byte_offset(data, 0);
  std::uint64_t lanes[kHashLanes];
  start_lanes(lanes);
  const __m512i multiplier = _mm512_set1_epi64(static_cast<long long>(kHashMultiplier));
  __m512i low = _mm512_loadu_si512(lanes);
  __m512i high = _mm512_loadu_si512(lanes + 8);
  for (std::size_t left = bytes; left >= kHashStride; left -= kHashStride, cursor += kHashStride) {
    low = absorb_eight(low, cursor, multiplier);
    high = absorb_eight(high, cursor + 64, multiplier);
  }
  _mm512_storeu_si512(lanes, low);
  _mm512_storeu_si512(lanes + 8, high);
  return finish_lanes(lanes, cursor, bytes);
}

}  // namespace tfmbs::kernels::avx512
