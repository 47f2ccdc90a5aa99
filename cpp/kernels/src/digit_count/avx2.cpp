// Two fields of 15 values a register, each in a lane of 16 bytes. A magnitude is 27 h + l with
// |l| <= 13 (quantize_int8/avx2.cpp), and each part's three digits are looked up.
#include <immintrin.h>

#include "digit_count/strips.hpp"
#include "operations.hpp"
#include "quantize_int8/balanced_trits.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

constexpr std::size_t kGroupFields = 2;
constexpr std::size_t kGroupValues = kGroupFields * kFieldTrits;
constexpr std::size_t kBlockGroups = 4;    // whose fields are reduced together
constexpr std::size_t kStripGroups = 256;  // 8 KiB of counts on the stack
static_assert(kStripGroups % kBlockGroups == 0);

struct DigitTables {
  // By a sixteenth of the magnitudes: h of its least, and the largest that has the same.
  alignas(16) std::uint8_t least_h[16];
  alignas(16) std::uint8_t limit[16];
  // By h, at most 5.
  alignas(16) std::uint8_t times_27[16];
  alignas(16) std::uint8_t upper[16];  // bits of the digits that are not zero: planes 0...2
  alignas(16) std::uint8_t upper_count[16];
  // By |l|.
  alignas(16) std::uint8_t lower[16];  // planes 3...5
  alignas(16) std::uint8_t lower_count[16];

  constexpr DigitTables()
      : least_h{}, limit{}, times_27{}, upper{}, upper_count{}, lower{}, lower_count{} {
    const auto ones = [](unsigned bits) {
      std::uint8_t count = 0;
      for (; bits != 0; bits &= bits - 1) ++count;
      return count;
    };
    for (unsigned a = 0; a < 8; ++a) {
      const unsigned h = (16 * a + 13) / 27;
      const unsigned last = 16 * a + 15;
      least_h[a] = static_cast<std::uint8_t>(h);
      limit[a] = static_cast<std::uint8_t>(last < 27 * h + 13 ? last : 27 * h + 13);
    }
    for (int i = 0; i <= 13; ++i) {
      const unsigned bits = balanced_trits(i).nonzero;
      lower[i] = static_cast<std::uint8_t>(bits);
      lower_count[i] = ones(bits);
      if (i > 5) continue;
      times_27[i] = static_cast<std::uint8_t>(27 * i);
      upper[i] = static_cast<std::uint8_t>(bits >> 3);
      upper_count[i] = ones(bits);
    }
  }
};
constexpr DigitTables kTables;

inline __m128i load_16(const void* from) {
  return _mm_loadu_si128(static_cast<const __m128i*>(from));
}
inline __m256i both_lanes(const std::uint8_t* table) {
  return _mm256_broadcastsi128_si256(load_16(table));
}

// Two fields, each with a zero behind it. Nothing else is read.
inline __m256i load_group(const std::int8_t* values) {
  const __m128i field =
      _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0);
  return _mm256_set_m128i(_mm_srli_si128(load_16(values + kFieldTrits - 1), 1),
                          _mm_and_si128(load_16(values), field));
}
inline __m256i load_last_group(const std::int8_t* values, std::size_t left) {
  if (left >= kGroupValues) return load_group(values);
  std::int8_t last[kGroupValues] = {};
  __builtin_memcpy(last, values, left);
  return load_group(last);
}

// Of 32 values of -127...127.
struct Digits {
  __m256i nonzero;  // a bit a plane
  __m256i count;
};

class DigitLookup {
 public:
  inline __attribute__((always_inline)) Digits of(__m256i values) const {
    const __m256i magnitude = _mm256_abs_epi8(values);
    const __m256i sixteenth =
        _mm256_and_si256(_mm256_srli_epi16(magnitude, 4), _mm256_set1_epi8(15));
    const __m256i h =
        _mm256_sub_epi8(_mm256_shuffle_epi8(least_h_, sixteenth),
                        _mm256_cmpgt_epi8(magnitude, _mm256_shuffle_epi8(limit_, sixteenth)));
    const __m256i l =
        _mm256_abs_epi8(_mm256_sub_epi8(magnitude, _mm256_shuffle_epi8(times_27_, h)));
    return {_mm256_or_si256(_mm256_shuffle_epi8(upper_, h), _mm256_shuffle_epi8(lower_, l)),
            _mm256_add_epi8(_mm256_shuffle_epi8(upper_count_, h),
                            _mm256_shuffle_epi8(lower_count_, l))};
  }

 private:
  __m256i least_h_ = both_lanes(kTables.least_h);
  __m256i limit_ = both_lanes(kTables.limit);
  __m256i times_27_ = both_lanes(kTables.times_27);
  __m256i upper_ = both_lanes(kTables.upper);
  __m256i upper_count_ = both_lanes(kTables.upper_count);
  __m256i lower_ = both_lanes(kTables.lower);
  __m256i lower_count_ = both_lanes(kTables.lower_count);
};

// Per dword, the ones among the lowest six bits; the others are zero.
inline __m256i population_count(__m256i words) {
  const __m256i ones =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  const __m256i low = _mm256_and_si256(words, _mm256_set1_epi32(15));
  return _mm256_add_epi32(_mm256_shuffle_epi8(ones, low),
                          _mm256_shuffle_epi8(ones, _mm256_srli_epi32(words, 4)));
}

// ORs of the bytes of each lane of four registers, in the lowest byte of a dword each; the dwords'
// other bytes are zero.
inline __m256i or_of_lanes(const __m256i (&bytes)[kBlockGroups]) {
  __m256i eights[2];
  for (std::size_t i = 0; i < 2; ++i) {
    eights[i] = _mm256_or_si256(_mm256_unpacklo_epi64(bytes[2 * i], bytes[2 * i + 1]),
                                _mm256_unpackhi_epi64(bytes[2 * i], bytes[2 * i + 1]));
  }
  const __m256 a = _mm256_castsi256_ps(eights[0]);
  const __m256 b = _mm256_castsi256_ps(eights[1]);
  __m256i fours = _mm256_or_si256(_mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88)),
                                  _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xDD)));
  fours = _mm256_or_si256(fours, _mm256_srli_epi32(fours, 16));
  fours = _mm256_or_si256(fours, _mm256_srli_epi32(fours, 8));
  return _mm256_and_si256(fours, _mm256_set1_epi32(0xFF));
}

inline std::uint64_t sum_of(__m256i lanes) {
  const __m128i two =
      _mm_add_epi64(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
  return static_cast<std::uint64_t>(_mm_cvtsi128_si64(two)) +
         static_cast<std::uint64_t>(_mm_extract_epi64(two, 1));
}

class Strip {
 public:
  static constexpr std::size_t kRows = 255 / kInt8Planes;
  static constexpr std::size_t kStepRows = 1;
  static constexpr std::size_t kValues = kStripGroups * kGroupValues;

  void clear(std::size_t depth) {
    for (std::size_t g = 0; g * kGroupValues < depth; g += kBlockGroups) {
      for (std::size_t i = 0; i < kBlockGroups; ++i) bytes_[g + i] = _mm256_setzero_si256();
    }
  }
  void add_rows(const std::int8_t* values, std::size_t /*stride*/, std::size_t /*rows*/,
                std::size_t depth, DigitTotals* totals) {
    constexpr std::size_t kBlockValues = kBlockGroups * kGroupValues;
    const DigitLookup lookup;
    const __m256i planes = _mm256_set1_epi32((1 << kInt8Planes) - 1);
    __m256i steps = _mm256_setzero_si256();
    __m256i empty = _mm256_setzero_si256();
    const auto add_group = [&](__m256i group, __m256i& bytes) {
      const Digits digits = lookup.of(group);
      bytes = _mm256_add_epi8(bytes, digits.count);
      steps = _mm256_add_epi64(steps, _mm256_sad_epu8(digits.count, _mm256_setzero_si256()));
      return digits.nonzero;
    };
    std::size_t k = 0;
    for (; k < depth; k += kBlockValues) {
      const std::int8_t* from = values + k;
      __m256i* bytes = bytes_ + k / kGroupValues;
      __m256i nonzero[kBlockGroups];
      if (depth - k >= kBlockValues) {
#pragma GCC unroll 4
        for (std::size_t i = 0; i < kBlockGroups; ++i) {
          nonzero[i] = add_group(load_group(from + i * kGroupValues), bytes[i]);
        }
      } else {
        for (std::size_t i = 0; i < kBlockGroups; ++i) {
          const std::size_t first = k + i * kGroupValues;
          nonzero[i] = first >= depth
                           ? _mm256_setzero_si256()
                           : add_group(load_last_group(values + first, depth - first), bytes[i]);
        }
      }
      const __m256i missing = _mm256_andnot_si256(or_of_lanes(nonzero), planes);
      empty = _mm256_add_epi32(empty, population_count(missing));
    }
    const std::size_t beyond = k / kFieldTrits - (depth + kFieldTrits - 1) / kFieldTrits;
    // Both below 2^32: one sum of four lanes gives them.
    const __m256i empty_pairs = _mm256_add_epi64(
        _mm256_slli_epi64(empty, 32), _mm256_blend_epi32(_mm256_setzero_si256(), empty, 0xAA));
    const std::uint64_t both = sum_of(_mm256_add_epi64(steps, empty_pairs));
    *totals = {static_cast<std::uint32_t>(both),
               static_cast<std::uint32_t>((both >> 32) - beyond * kInt8Planes)};
  }
  // A field's 15 counts as eight and, from the eighth on, eight: both are read before one is
  // written, and the next field's are not touched.
  void add_to(std::size_t depth, std::uint32_t* counts) const {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(bytes_);
    std::size_t k = 0;
    for (; k + kFieldTrits <= depth; k += kFieldTrits, bytes += 16) {
      auto* first = reinterpret_cast<__m256i*>(counts + k);
      auto* second = reinterpret_cast<__m256i*>(counts + k + 7);
      const __m256i a = _mm256_add_epi32(_mm256_loadu_si256(first), words_of(bytes));
      const __m256i b = _mm256_add_epi32(_mm256_loadu_si256(second), words_of(bytes + 7));
      _mm256_storeu_si256(first, a);
      _mm256_storeu_si256(second, b);
    }
    for (; k < depth; ++k, ++bytes) counts[k] += *bytes;
  }

 private:
  static inline __m256i words_of(const std::uint8_t* eight) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(eight)));
  }

  __m256i bytes_[kStripGroups];
};

}  // namespace

void digit_count(const DigitCountArgs& args) noexcept {
  Strip strip;
  count_strips(strip, args);
}

}  // namespace tfmbs::kernels::avx2
