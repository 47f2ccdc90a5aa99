// Values and weights are nearly always small: then a pair of products is one vpmaddwd. A strip in
// which they are not is multiplied 32 x 32 -> 64 bits, even and odd columns apart, for that takes
// the even half of each lane.
#include <immintrin.h>

#include "operations.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

constexpr std::size_t kStrip = 512;
constexpr std::size_t kRegisters = kStrip / 16;
// Numbers below it: a dword adds up two products of each of a strip's registers.
constexpr std::uint32_t kSmall = 1 << 12;
static_assert(std::uint64_t{kSmall} * kSmall * 2 * kRegisters <= 0xFFFFFFFF);

inline __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

inline std::uint64_t sum_of(__m256i lanes) {
  alignas(32) std::uint64_t each[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(each), lanes);
  return each[0] + each[1] + each[2] + each[3];
}

std::uint64_t wide_sum(const std::uint32_t* values, const std::uint16_t* weights,
                       std::size_t size) {
  __m256i even = _mm256_setzero_si256();
  __m256i odd = _mm256_setzero_si256();
  const std::size_t whole = size / 8 * 8;
  for (std::size_t k = 0; k < whole; k += 8) {
    const __m256i a = load(values + k);
    const __m256i b =
        _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weights + k)));
    even = _mm256_add_epi64(even, _mm256_mul_epu32(a, b));
    odd =
        _mm256_add_epi64(odd, _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32)));
  }
  std::uint64_t sum = sum_of(_mm256_add_epi64(even, odd));
  for (std::size_t k = whole; k < size; ++k) sum += std::uint64_t{values[k]} * weights[k];
  return sum;
}

// `registers` times sixteen values in 16 bits; whether they are small.
inline bool pack(const std::uint32_t* values, std::size_t registers,
                 __m256i (&packed)[kRegisters]) {
  __m256i all = _mm256_setzero_si256();
  for (std::size_t i = 0; i < registers; ++i) {
    const __m256i a = load(values + 16 * i);
    const __m256i b = load(values + 16 * i + 8);
    all = _mm256_or_si256(all, _mm256_or_si256(a, b));
    packed[i] = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
  }
  return _mm256_testz_si256(all, _mm256_set1_epi32(static_cast<int>(~(kSmall - 1)))) != 0;
}

// False, and nothing is added, where a weight is not small.
inline bool add_small(const __m256i (&values)[kRegisters], std::size_t registers,
                      const std::uint16_t* weights, std::uint64_t& sum) {
  __m256i sums = _mm256_setzero_si256();
  __m256i all = _mm256_setzero_si256();
  for (std::size_t i = 0; i < registers; ++i) {
    const __m256i w = load(weights + 16 * i);
    all = _mm256_or_si256(all, w);
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(values[i], w));
  }
  if (_mm256_testz_si256(all, _mm256_set1_epi16(static_cast<short>(~(kSmall - 1)))) == 0) {
    return false;
  }
  sum += sum_of(_mm256_add_epi64(_mm256_and_si256(sums, _mm256_set1_epi64x(0xFFFFFFFF)),
                                 _mm256_srli_epi64(sums, 32)));
  return true;
}

}  // namespace

void weighted_sum(const WeightedSumArgs& args) noexcept {
  for (std::size_t r = 0; r < args.rows; ++r) args.sums[r] = 0;
  __m256i packed[kRegisters];
  const std::size_t whole = args.size / 16 * 16;
  for (std::size_t first = 0; first < whole; first += kStrip) {
    const std::size_t count = whole - first < kStrip ? whole - first : kStrip;
    const bool small = pack(args.values + first, count / 16, packed);
    for (std::size_t r = 0; r < args.rows; ++r) {
      const std::uint16_t* weights = args.weights + r * args.size + first;
      if (small && add_small(packed, count / 16, weights, args.sums[r])) continue;
      args.sums[r] += wide_sum(args.values + first, weights, count);
    }
  }
  for (std::size_t r = 0; whole < args.size && r < args.rows; ++r) {
    args.sums[r] +=
        wide_sum(args.values + whole, args.weights + r * args.size + whole, args.size - whole);
  }
}

}  // namespace tfmbs::kernels::avx2
