// Two passes over a row: the absolute maximum as integers, then 64 values at a time to int8 and
// through two byte tables (VBMI) to the six planes' words, one mask register a plane.
#include <immintrin.h>

#include "operations.hpp"
#include "quantize_int8/balanced_trits.hpp"
#include "quantize_int8/row_scale.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr TritTable<128> kTrits;
constexpr int kNearestEven = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

// Sixteen elements as fp32, those without a bit in `valid` as zero.
template <FloatType kType>
inline __m512 load_floats(std::uint64_t valid, const unsigned char* from) {
  const auto mask = static_cast<__mmask16>(valid);
  if constexpr (kType == FloatType::kFloat32) {
    return _mm512_maskz_loadu_ps(mask, from);
  } else {
    const __m256i halves = _mm256_maskz_loadu_epi16(mask, from);
    if constexpr (kType == FloatType::kFloat16) return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
}

// The greatest magnitude, as the bits of an fp32 (of an fp64 for fp64): integers, so that a NaN
// wins.
template <FloatType kType>
std::uint64_t largest_magnitude(const unsigned char* row, std::size_t columns) {
  if constexpr (kType == FloatType::kFloat64) {
    const __m512i magnitude_bits = _mm512_set1_epi64(INT64_MAX);
    __m512i largest = _mm512_setzero_si512();
    for (std::size_t k = 0; k < columns; k += 8) {
      const auto mask = static_cast<__mmask8>(columns - k < 8 ? (1U << (columns - k)) - 1 : 0xFFU);
      largest = _mm512_max_epi64(
          largest, _mm512_and_si512(_mm512_maskz_loadu_epi64(mask, row + k * 8), magnitude_bits));
    }
    return static_cast<std::uint64_t>(_mm512_reduce_max_epi64(largest));
  } else {
    // Magnitudes of 16 bits are compared as fp32's: loading them costs less than a second
    // reduction.
    constexpr std::size_t kBytes = float_bytes(kType);
    const __m512i magnitude_bits = _mm512_set1_epi32(INT32_MAX);
    __m512i largest[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    std::size_t k = 0;
    for (; k + 32 <= columns; k += 32) {
      for (std::size_t i = 0; i < 2; ++i) {
        const __m512 v = load_floats<kType>(0xFFFF, row + (k + 16 * i) * kBytes);
        largest[i] =
            _mm512_max_epi32(largest[i], _mm512_and_si512(_mm512_castps_si512(v), magnitude_bits));
      }
    }
    for (; k < columns; k += 16) {
      const std::uint64_t valid = columns - k < 16 ? (1U << (columns - k)) - 1 : 0xFFFFU;
      const __m512 v = load_floats<kType>(valid, row + k * kBytes);
      largest[0] =
          _mm512_max_epi32(largest[0], _mm512_and_si512(_mm512_castps_si512(v), magnitude_bits));
    }
    return static_cast<std::uint32_t>(
        _mm512_reduce_max_epi32(_mm512_max_epi32(largest[0], largest[1])));
  }
}

// Sixty-four values of int8. |x * inverse| stays below 127.5, so nothing needs clamping.
template <FloatType kType>
inline __m512i quantize_64(const unsigned char* from, std::uint64_t valid, double inverse) {
  if constexpr (kType == FloatType::kFloat64) {
    const __m512d factor = _mm512_set1_pd(inverse);
    alignas(64) std::int8_t values[64];
    for (std::size_t i = 0; i < 64; i += 16) {
      const __m512d low = _mm512_maskz_loadu_pd(static_cast<__mmask8>(valid >> i), from + i * 8);
      const __m512d high =
          _mm512_maskz_loadu_pd(static_cast<__mmask8>(valid >> (i + 8)), from + i * 8 + 64);
      const __m256i q_low = _mm512_cvt_roundpd_epi32(_mm512_mul_pd(low, factor), kNearestEven);
      const __m256i q_high = _mm512_cvt_roundpd_epi32(_mm512_mul_pd(high, factor), kNearestEven);
      const __m512i q = _mm512_inserti64x4(_mm512_castsi256_si512(q_low), q_high, 1);
      _mm512_mask_cvtepi32_storeu_epi8(values + i, 0xFFFF, q);
    }
    return _mm512_load_si512(values);
  } else {
    constexpr std::size_t kBytes = float_bytes(kType);
    const __m512 factor = _mm512_set1_ps(static_cast<float>(inverse));
    __m512i q[4];
    for (std::size_t i = 0; i < 4; ++i) {
      const __m512 v = load_floats<kType>(valid >> (16 * i), from + 16 * i * kBytes);
      q[i] = _mm512_cvt_roundps_epi32(_mm512_mul_ps(v, factor), kNearestEven);
    }
    // The packs work in 128-bit lanes: dword 4 l + i of the result holds lane l of register i.
    const __m512i packed =
        _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, packed);
  }
}

// A word of each plane, from 64 values.
class Splitter {
 public:
  void split(__m512i values, std::uint64_t* words, std::size_t plane_stride) const {
    const __m512i magnitudes = _mm512_abs_epi8(values);
    const __m512i nonzero = _mm512_permutex2var_epi8(nonzero_[0], magnitudes, nonzero_[1]);
    const __m512i negative =
        _mm512_xor_si512(_mm512_permutex2var_epi8(negative_[0], magnitudes, negative_[1]),
                         _mm512_maskz_mov_epi8(_mm512_movepi8_mask(values), nonzero));
#pragma GCC unroll 6
    for (std::size_t p = 0; p < kInt8Planes; ++p, words += plane_stride) {
      const __m512i bit = _mm512_set1_epi8(static_cast<char>(1 << p));
      words[0] = _mm512_test_epi8_mask(nonzero, bit);
      words[kPlaneWords] = _mm512_test_epi8_mask(negative, bit);
    }
  }

 private:
  __m512i nonzero_[2] = {_mm512_load_si512(kTrits.nonzero), _mm512_load_si512(kTrits.nonzero + 64)};
  __m512i negative_[2] = {_mm512_load_si512(kTrits.negative),
                          _mm512_load_si512(kTrits.negative + 64)};
};

template <FloatType kType>
void quantize_as(const QuantizeInt8Args& args) {
  constexpr std::size_t kBytes = float_bytes(kType);
  const Splitter splitter;
  const std::size_t row_words = blocks_of(args.columns) * kBlockWords;
  for (std::size_t r = 0; r < args.rows; ++r) {
    const unsigned char* row = byte_offset(args.input, r * args.row_stride * kBytes);
    const std::uint64_t bits =
        with_given<kType>(largest_magnitude<kType>(row, args.columns), args.magnitudes, r);
    constexpr FloatFormat kFormat = kType == FloatType::kFloat64 ? kFloat64Format : kFloat32Format;
    const bool finite = bits < kFormat.infinity;
    RowScale scale{0.0, 1.0};
    if (finite) {
      if constexpr (kType == FloatType::kFloat64) {
        scale = row_scale(double_from_bits(bits));
      } else {
        scale = row_scale(float_from_bits(static_cast<std::uint32_t>(bits)));
      }
    }
    args.scales[r] = scale.scale;
    args.nan_rows[r] = finite ? 0 : 1;

    const auto values_from = [&](std::size_t k, std::uint64_t valid) {
      return finite ? quantize_64<kType>(row + k * kBytes, valid, scale.inverse)
                    : _mm512_setzero_si512();
    };
    std::int8_t* to = args.values != nullptr ? args.values + r * args.columns : nullptr;
    std::uint64_t* planes = args.planes != nullptr ? args.planes + r * row_words : nullptr;
    const auto words_of = [&](std::size_t k) { return planes + word_of(k); };
    if (planes != nullptr && args.columns % kBlockTrits != 0) {
      // The last block whole, and then the words that have values: a short row is mostly padding.
      std::uint64_t* words = planes + row_words - kBlockWords;
      for (std::size_t p = 0; p < kInt8Planes; ++p, words += args.plane_stride) {
        _mm512_storeu_si512(words, _mm512_setzero_si512());
        _mm512_storeu_si512(words + kPlaneWords, _mm512_setzero_si512());
      }
    }
    std::size_t k = 0;
    for (; k + 64 <= args.columns; k += 64) {
      const __m512i values = values_from(k, ~std::uint64_t{0});
      if (to != nullptr) _mm512_storeu_si512(to + k, values);
      if (planes != nullptr) splitter.split(values, words_of(k), args.plane_stride);
    }
    if (k < args.columns) {
      const std::uint64_t valid = (std::uint64_t{1} << (args.columns - k)) - 1;
      const __m512i values = values_from(k, valid);
      if (to != nullptr) _mm512_mask_storeu_epi8(to + k, valid, values);
      if (planes != nullptr) splitter.split(values, words_of(k), args.plane_stride);
    }
  }
}

}  // namespace

void quantize_int8(const QuantizeInt8Args& args) noexcept {
  with_type(args.type, [&](auto type) { quantize_as<type.value>(args); });
}

}  // namespace tfmbs::kernels::avx512
