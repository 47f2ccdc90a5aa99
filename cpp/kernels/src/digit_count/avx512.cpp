// Four fields of 15 values a register, each in a lane of 16 bytes: a byte permutation looks up
// which digits are not zero, and a tree of ORs says which planes a field leaves empty. The columns'
// counts stay in bytes for as many rows as these hold.
#include <immintrin.h>

#include "digit_count/strips.hpp"
#include "operations.hpp"
#include "quantize_int8/balanced_trits.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr TritTable<128> kTrits;
constexpr std::size_t kGroupFields = 4;
constexpr std::size_t kGroupValues = kGroupFields * kFieldTrits;
constexpr std::size_t kStripGroups = 128;  // 8 KiB of counts on the stack
constexpr __mmask64 kFieldBytes = 0x7FFF7FFF7FFF7FFF;

// Which digits of 60 values are not zero, six bits a byte.
class Digits {
 public:
  // Values without a bit in `valid` are zero.
  inline __attribute__((always_inline)) __m512i of(const std::int8_t* values,
                                                   __mmask64 valid) const {
    const __m512i magnitudes = _mm512_abs_epi8(_mm512_maskz_loadu_epi8(valid, values));
    return _mm512_permutex2var_epi8(low_, magnitudes, high_);
  }

 private:
  __m512i low_ = _mm512_load_si512(kTrits.nonzero);
  __m512i high_ = _mm512_load_si512(kTrits.nonzero + 64);
};

// Byte 16 f + i is byte 15 f + i, and byte 15 of a lane is zero.
class FieldLanes {
 public:
  inline __attribute__((always_inline)) __m512i of(__m512i digits) const {
    return _mm512_maskz_permutexvar_epi8(kFieldBytes, order_, digits);
  }

 private:
  __m512i order_ = _mm512_add_epi8(
      _mm512_set_epi64(0x0F0E0D0C0B0A0908, 0x0706050403020100, 0x0F0E0D0C0B0A0908,
                       0x0706050403020100, 0x0F0E0D0C0B0A0908, 0x0706050403020100,
                       0x0F0E0D0C0B0A0908, 0x0706050403020100),
      _mm512_set_epi64(0x2D2D2D2D2D2D2D2D, 0x2D2D2D2D2D2D2D2D, 0x1E1E1E1E1E1E1E1E,
                       0x1E1E1E1E1E1E1E1E, 0x0F0F0F0F0F0F0F0F, 0x0F0F0F0F0F0F0F0F, 0, 0));
};

// Planes that sixteen fields leave empty, a dword a field: dword i of lane f is field f of register
// i.
inline __m512i empty_planes(const __m512i (&lanes)[4]) {
  const __m512i halves[2] = {_mm512_or_si512(_mm512_unpacklo_epi64(lanes[0], lanes[1]),
                                             _mm512_unpackhi_epi64(lanes[0], lanes[1])),
                             _mm512_or_si512(_mm512_unpacklo_epi64(lanes[2], lanes[3]),
                                             _mm512_unpackhi_epi64(lanes[2], lanes[3]))};
  const __m512 low = _mm512_castsi512_ps(halves[0]);
  const __m512 high = _mm512_castsi512_ps(halves[1]);
  __m512i any = _mm512_or_si512(_mm512_castps_si512(_mm512_shuffle_ps(low, high, 0x88)),
                                _mm512_castps_si512(_mm512_shuffle_ps(low, high, 0xDD)));
  any = _mm512_or_si512(any, _mm512_srli_epi32(any, 16));
  any = _mm512_or_si512(any, _mm512_srli_epi32(any, 8));
  return _mm512_popcnt_epi32(_mm512_andnot_si512(any, _mm512_set1_epi32((1 << kInt8Planes) - 1)));
}

inline __attribute__((always_inline)) void add_bytes(const __m512i& bytes, std::size_t columns,
                                                     std::uint32_t* counts) {
  const __m128i quarters[4] = {_mm512_castsi512_si128(bytes), _mm512_extracti32x4_epi32(bytes, 1),
                               _mm512_extracti32x4_epi32(bytes, 2),
                               _mm512_extracti32x4_epi32(bytes, 3)};
#pragma GCC unroll 4
  for (std::size_t q = 0; q < 4; ++q) {
    if (16 * q >= columns) break;
    const std::size_t left = columns - 16 * q;
    const auto mask = static_cast<__mmask16>(left < 16 ? (1U << left) - 1 : 0xFFFFU);
    std::uint32_t* to = counts + 16 * q;
    _mm512_mask_storeu_epi32(
        to, mask,
        _mm512_add_epi32(_mm512_maskz_loadu_epi32(mask, to), _mm512_cvtepu8_epi32(quarters[q])));
  }
}

class Strip {
 public:
  static constexpr std::size_t kRows = 255 / kInt8Planes;
  static constexpr std::size_t kStepRows = 4;
  static constexpr std::size_t kValues = kStripGroups * kGroupValues;

  void clear(std::size_t depth) {
    for (std::size_t g = 0; g * kGroupValues < depth; ++g) bytes_[g] = _mm512_setzero_si512();
  }
  void add_rows(const std::int8_t* values, std::size_t stride, std::size_t rows, std::size_t depth,
                DigitTotals* totals) {
    if (rows == kStepRows) {
      add_step(values, stride, depth, totals);
    } else {
      for (std::size_t r = 0; r < rows; ++r) totals[r] = add_row(values + r * stride, depth);
    }
  }
  void add_to(std::size_t depth, std::uint32_t* counts) const {
    for (std::size_t g = 0; g * kGroupValues < depth; ++g) {
      const std::size_t at = g * kGroupValues;
      if (depth - at < kGroupValues) {
        add_bytes(bytes_[g], depth - at, counts + at);
      } else {
        add_bytes(bytes_[g], kGroupValues, counts + at);
      }
    }
  }

 private:
  static __mmask64 valid(std::size_t at, std::size_t depth) {
    const std::size_t left = depth - at;
    return (__mmask64{1} << (left < kGroupValues ? left : kGroupValues)) - 1;
  }

  // One row: four of its groups at a time.
  DigitTotals add_row(const std::int8_t* values, std::size_t depth) {
    __m512i steps = _mm512_setzero_si512();
    __m512i empty = _mm512_setzero_si512();
    std::size_t k = 0;
    for (std::size_t g = 0; k < depth; k += 4 * kGroupValues, g += 4) {
      __m512i lanes[4];
#pragma GCC unroll 4
      for (std::size_t i = 0; i < 4; ++i) {
        const std::size_t at = k + i * kGroupValues;
        lanes[i] = _mm512_setzero_si512();
        if (at >= depth) continue;
        const __m512i group = digits_.of(values + at, valid(at, depth));
        const __m512i counts = _mm512_popcnt_epi8(group);
        bytes_[g + i] = _mm512_add_epi8(bytes_[g + i], counts);
        steps = _mm512_add_epi64(steps, _mm512_sad_epu8(counts, _mm512_setzero_si512()));
        lanes[i] = field_lanes_.of(group);
      }
      empty = _mm512_add_epi32(empty, empty_planes(lanes));
    }
    return {static_cast<std::uint32_t>(_mm512_reduce_add_epi64(steps)),
            static_cast<std::uint32_t>(_mm512_reduce_add_epi32(empty)) - beyond(k, depth)};
  }

  // Four rows: a group of each at a time. Dword i of every lane is of row i.
  void add_step(const std::int8_t* values, std::size_t stride, std::size_t depth,
                DigitTotals* totals) {
    __m512i steps = _mm512_setzero_si512();
    __m512i empty = _mm512_setzero_si512();
    std::size_t k = 0;
    for (__m512i* bytes = bytes_; k < depth; k += kGroupValues, ++bytes) {
      __m512i sums[4];
      __m512i lanes[4];
      __m512i columns = *bytes;
#pragma GCC unroll 4
      for (std::size_t i = 0; i < 4; ++i) {
        const __m512i group = digits_.of(values + i * stride + k, valid(k, depth));
        const __m512i counts = _mm512_popcnt_epi8(group);
        columns = _mm512_add_epi8(columns, counts);
        sums[i] = _mm512_sad_epu8(counts, _mm512_setzero_si512());
        lanes[i] = field_lanes_.of(group);
      }
      *bytes = columns;
      const __m512i low = _mm512_add_epi64(_mm512_unpacklo_epi64(sums[0], sums[1]),
                                           _mm512_unpackhi_epi64(sums[0], sums[1]));
      const __m512i high = _mm512_add_epi64(_mm512_unpacklo_epi64(sums[2], sums[3]),
                                            _mm512_unpackhi_epi64(sums[2], sums[3]));
      steps =
          _mm512_add_epi32(steps, _mm512_castps_si512(_mm512_shuffle_ps(
                                      _mm512_castsi512_ps(low), _mm512_castsi512_ps(high), 0x88)));
      empty = _mm512_add_epi32(empty, empty_planes(lanes));
    }
    alignas(16) std::uint32_t row_steps[4];
    alignas(16) std::uint32_t row_empty[4];
    _mm_store_si128(reinterpret_cast<__m128i*>(row_steps), sum_of_lanes(steps));
    _mm_store_si128(reinterpret_cast<__m128i*>(row_empty), sum_of_lanes(empty));
    for (std::size_t i = 0; i < 4; ++i) {
      totals[i] = {row_steps[i], row_empty[i] - beyond(k, depth)};
    }
  }

  static __m128i sum_of_lanes(__m512i lanes) {
    const __m256i halves =
        _mm256_add_epi32(_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64(lanes, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
  }

  // Empty planes of the fields from the end of the values to `end`, which were counted, too.
  static std::uint32_t beyond(std::size_t end, std::size_t depth) {
    const std::size_t fields = end / kFieldTrits - (depth + kFieldTrits - 1) / kFieldTrits;
    return static_cast<std::uint32_t>(fields * kInt8Planes);
  }

  Digits digits_;
  FieldLanes field_lanes_;
  __m512i bytes_[kStripGroups];
};

}  // namespace

void digit_count(const DigitCountArgs& args) noexcept {
  Strip strip;
  count_strips(strip, args);
}

}  // namespace tfmbs::kernels::avx512
