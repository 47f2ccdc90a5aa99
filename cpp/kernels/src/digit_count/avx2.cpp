// Two fields of 15 values a register, each in a lane of 16 bytes. q = 27 h + l, and each part's
// three digits are looked up by its magnitude (quantize_int8/avx2.cpp).
#include <immintrin.h>

#include "digit_count/strips.hpp"
#include "operations.hpp"
#include "quantize_int8/balanced_trits.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

constexpr TritTable<16> kTrits;
constexpr std::size_t kGroupFields = 2;
constexpr std::size_t kGroupValues = kGroupFields * kFieldTrits;
constexpr std::size_t kStripGroups = 256;  // 8 KiB of counts on the stack

inline __m128i load_16(const void* from) {
  return _mm_loadu_si128(static_cast<const __m128i*>(from));
}

inline __m256i both_lanes(const std::uint8_t* table) {
  return _mm256_broadcastsi128_si256(load_16(table));
}

// Bits of the digits that are not zero: of three digits of a part, 3 ... 5; of a value, 0 ... 5.
class Digits {
 public:
  // Sixteen values of int8 a lane.
  inline __attribute__((always_inline)) __m256i of(__m128i low_lane, __m128i high_lane) const {
    const __m256i low = _mm256_cvtepi8_epi16(low_lane);
    const __m256i high = _mm256_cvtepi8_epi16(high_lane);
    const __m256i h_low = _mm256_mulhrs_epi16(low, reciprocal_);
    const __m256i h_high = _mm256_mulhrs_epi16(high, reciprocal_);
    const __m256i l_low = _mm256_sub_epi16(low, _mm256_mullo_epi16(h_low, base_));
    const __m256i l_high = _mm256_sub_epi16(high, _mm256_mullo_epi16(h_high, base_));
    const __m256i upper = _mm256_shuffle_epi8(table_, magnitudes(h_low, h_high));
    const __m256i lower = _mm256_shuffle_epi8(table_, magnitudes(l_low, l_high));
    return _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(upper, 3), _mm256_set1_epi8(7)),
                           lower);
  }

 private:
  static inline __m256i magnitudes(__m256i low, __m256i high) {
    return _mm256_abs_epi8(_mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xD8));
  }

  __m256i reciprocal_ = _mm256_set1_epi16(1214);
  __m256i base_ = _mm256_set1_epi16(27);
  __m256i table_ = both_lanes(kTrits.nonzero);
};

struct PopulationTable {
  alignas(16) std::uint8_t counts[16];
  constexpr PopulationTable() : counts{} {
    for (unsigned i = 0; i < 16; ++i) {
      counts[i] = static_cast<std::uint8_t>((i & 1) + (i >> 1 & 1) + (i >> 2 & 1) + (i >> 3));
    }
  }
};
constexpr PopulationTable kPopulation;

// Of bytes below 2^6.
inline __m256i population_count(__m256i bytes, __m256i table) {
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(3));
  const __m256i low = _mm256_and_si256(bytes, _mm256_set1_epi8(15));
  return _mm256_add_epi8(_mm256_shuffle_epi8(table, low), _mm256_shuffle_epi8(table, high));
}

// The lowest byte of each dword becomes the OR of its lane.
inline __m256i or_of_lane(__m256i bytes) {
  bytes = _mm256_or_si256(bytes, _mm256_shuffle_epi32(bytes, 0x4E));
  bytes = _mm256_or_si256(bytes, _mm256_shuffle_epi32(bytes, 0xB1));
  bytes = _mm256_or_si256(bytes, _mm256_srli_epi32(bytes, 16));
  return _mm256_or_si256(bytes, _mm256_srli_epi32(bytes, 8));
}

inline std::uint64_t sum_of(__m256i lanes) {
  alignas(32) std::uint64_t values[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(values), lanes);
  return values[0] + values[1] + values[2] + values[3];
}

class Strip {
 public:
  static constexpr std::size_t kRows = 255 / kInt8Planes;
  static constexpr std::size_t kStepRows = 1;
  static constexpr std::size_t kValues = kStripGroups * kGroupValues;

  void clear(std::size_t depth) {
    for (std::size_t g = 0; g * kGroupValues < depth; ++g) bytes_[g] = _mm256_setzero_si256();
  }
  void add_rows(const std::int8_t* values, std::size_t /*stride*/, std::size_t /*rows*/,
                std::size_t depth, DigitTotals* totals) {
    const __m128i field =
        _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0);
    const __m256i table = both_lanes(kPopulation.counts);
    const __m256i planes = _mm256_set1_epi32((1 << kInt8Planes) - 1);
    __m256i steps = _mm256_setzero_si256();
    __m256i empty = _mm256_setzero_si256();
    __m256i* bytes = bytes_;
    std::size_t k = 0;
    for (; k < depth; k += kGroupValues, ++bytes) {
      const std::int8_t* from = values + k;
      alignas(16) std::int8_t last[2 * 16] = {};
      if (depth - k < kGroupValues + 1) {  // the second load takes a byte more
        __builtin_memcpy(last, from, depth - k < kGroupValues ? depth - k : kGroupValues);
        from = last;
      }
      const __m256i group = digits_.of(_mm_and_si128(load_16(from), field),
                                       _mm_and_si128(load_16(from + kFieldTrits), field));
      const __m256i counts = population_count(group, table);
      *bytes = _mm256_add_epi8(*bytes, counts);
      steps = _mm256_add_epi64(steps, _mm256_sad_epu8(counts, _mm256_setzero_si256()));
      const __m256i missing = _mm256_andnot_si256(or_of_lane(group), planes);
      empty = _mm256_add_epi32(empty, population_count(missing, table));
    }
    const std::size_t beyond = k / kFieldTrits - (depth + kFieldTrits - 1) / kFieldTrits;
    const __m256i one_a_lane = _mm256_setr_epi32(-1, 0, 0, 0, -1, 0, 0, 0);
    const std::uint64_t all_empty = sum_of(_mm256_and_si256(empty, one_a_lane));
    *totals = {static_cast<std::uint32_t>(sum_of(steps)),
               static_cast<std::uint32_t>(all_empty - beyond * kInt8Planes)};
  }
  void add_to(std::size_t depth, std::uint32_t* counts) const {
    for (std::size_t k = 0; k < depth; k += kFieldTrits) {
      alignas(16) std::uint8_t field[16];
      __builtin_memcpy(field, reinterpret_cast<const std::uint8_t*>(bytes_) + k / kFieldTrits * 16,
                       sizeof field);
      for (std::size_t i = 0; i < kFieldTrits && k + i < depth; ++i) counts[k + i] += field[i];
    }
  }

 private:
  Digits digits_;
  __m256i bytes_[kStripGroups];
};

}  // namespace

void digit_count(const DigitCountArgs& args) noexcept {
  Strip strip;
  count_strips(strip, args);
}

}  // namespace tfmbs::kernels::avx2
