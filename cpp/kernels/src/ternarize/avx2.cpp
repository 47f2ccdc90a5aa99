// Floats are compared as integers (scalar.hpp says why), and the compare's sign bits gathered by
// movemask. What is past a row's end reads as zeros.
#include <immintrin.h>

#include "avx2_partial.hpp"
#include "operations.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

// 32 bytes; `left` of them if they are fewer, then zeros.
template <std::size_t kBytes>
inline __m256i load(const unsigned char* from, std::size_t left) {
  if constexpr (kBytes >= 4) {
    return load_words(from, left / 4);
  } else {
    unsigned char last[32];
    if (left < sizeof last) {
      std::memset(last, 0, sizeof last);
      std::memcpy(last, from, left);
      from = last;
    }
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
}

// kGroup registers make kBits bits. Packing saturates, so signs stay; it works on halves of
// registers, whose pieces `signs` brings into order.
struct Lanes16 {
  static constexpr std::size_t kBytes = 2, kGroup = 2, kBits = 32;
  static __m256i broadcast(std::uint64_t v) { return _mm256_set1_epi16(static_cast<short>(v)); }
  static __m256i add(__m256i a, __m256i b) { return _mm256_add_epi16(a, b); }
  static __m256i above(__m256i a, __m256i b) { return _mm256_cmpgt_epi16(a, b); }
  static std::uint64_t signs(const __m256i (&v)[kGroup]) {
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(v[0], v[1]), 0xD8);
    return static_cast<std::uint32_t>(_mm256_movemask_epi8(bytes));
  }
};
struct Lanes32 {
  static constexpr std::size_t kBytes = 4, kGroup = 4, kBits = 32;
  static __m256i broadcast(std::uint64_t v) { return _mm256_set1_epi32(static_cast<int>(v)); }
  static __m256i add(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
  static __m256i above(__m256i a, __m256i b) { return _mm256_cmpgt_epi32(a, b); }
  static std::uint64_t signs(const __m256i (&v)[kGroup]) {
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    return static_cast<std::uint32_t>(_mm256_movemask_epi8(
        _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))));
  }
};
struct Lanes64 {
  static constexpr std::size_t kBytes = 8, kGroup = 1, kBits = 4;
  static __m256i broadcast(std::uint64_t v) {
    return _mm256_set1_epi64x(static_cast<long long>(v));
  }
  static __m256i add(__m256i a, __m256i b) { return _mm256_add_epi64(a, b); }
  static __m256i above(__m256i a, __m256i b) { return _mm256_cmpgt_epi64(a, b); }
  static std::uint64_t signs(const __m256i (&v)[kGroup]) {
    return static_cast<std::uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(v[0])));
  }
};

// Magnitudes are raised so far that infinity is the greatest signed number: a NaN becomes negative,
// and nothing else does. So one signed compare finds what is above the threshold and no NaN.
struct Limits {
  __m256i magnitude_bits;
  __m256i raise;
  __m256i threshold;  // raised
};

// At most 64 elements; returns whether a NaN is among them.
template <typename L>
inline __attribute__((always_inline)) bool convert(const unsigned char* from, std::size_t elements,
                                                   const Limits& limits, std::uint64_t* words) {
  std::uint64_t nonzero = 0;
  std::uint64_t negative = 0;
  __m256i any_raised[L::kGroup] = {};
  for (std::size_t i = 0; i < elements; i += L::kBits) {
    __m256i bits[L::kGroup];
    __m256i set[L::kGroup];
    for (std::size_t g = 0; g < L::kGroup; ++g) {
      const std::size_t at = i * L::kBytes + 32 * g;
      const std::size_t end = elements * L::kBytes;
      bits[g] = load<L::kBytes>(from + at, at < end ? end - at : 0);
      const __m256i raised = L::add(_mm256_and_si256(bits[g], limits.magnitude_bits), limits.raise);
      any_raised[g] = _mm256_or_si256(any_raised[g], raised);
      set[g] = L::above(raised, limits.threshold);
    }
    nonzero |= L::signs(set) << i;
    negative |= L::signs(bits) << i;
  }
  words[0] = nonzero;
  words[kPlaneWords] = nonzero & negative;
  return L::signs(any_raised) != 0;
}

inline void clear_block(std::uint64_t* words) {
  static_assert(kBlockWords % 4 == 0);
  for (std::size_t w = 0; w < kBlockWords; w += 4) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + w), _mm256_setzero_si256());
  }
}

template <typename L>
void ternarize_as(const TernarizeArgs& args, FloatFormat format) {
  const std::size_t row_words = blocks_of(args.columns) * kBlockWords;
  const std::uint64_t raise = format.sign - 1 - format.infinity;
  Limits limits{L::broadcast(format.sign - 1), L::broadcast(raise), _mm256_setzero_si256()};
  for (std::size_t r = 0; r < args.rows; ++r) {
    const unsigned char* row = byte_offset(args.input, r * args.row_stride * L::kBytes);
    std::uint64_t* planes = args.planes + r * row_words;
    // Nothing is above infinity, nor a NaN.
    const std::uint64_t threshold =
        threshold_magnitude(args.thresholds != nullptr ? args.thresholds[r] : 0.0, format);
    limits.threshold =
        L::broadcast(raise + (threshold < format.infinity ? threshold : format.infinity));
    bool nan = false;
    for (std::size_t k = 0; k < args.columns; planes += kBlockWords) {
      if (args.columns - k < kBlockTrits) clear_block(planes);
      for (std::size_t w = 0; w < kPlaneWords && k < args.columns;
           ++w, k += 64, row += 64 * L::kBytes) {
        nan |= args.columns - k >= 64 ? convert<L>(row, 64, limits, planes + w)
                                      : convert<L>(row, args.columns - k, limits, planes + w);
      }
    }
    args.nan_rows[r] = nan ? 1 : 0;
  }
}

}  // namespace

void ternarize(const TernarizeArgs& args) noexcept {
  switch (args.type) {
    case FloatType::kFloat64:
      return ternarize_as<Lanes64>(args, kFloat64Format);
    case FloatType::kFloat32:
      return ternarize_as<Lanes32>(args, kFloat32Format);
    case FloatType::kBFloat16:
      return ternarize_as<Lanes16>(args, kBFloat16Format);
    case FloatType::kFloat16:
      return ternarize_as<Lanes16>(args, kFloat16Format);
  }
}

}  // namespace tfmbs::kernels::avx2
