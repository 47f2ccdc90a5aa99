// As AVX-512's, but a byte table has 16 entries here: q = 27 h + l with |h| <= 5 and |l| <= 13, and
// each part's three trits are looked up by its magnitude. What is past a row's end reads as zeros.
#include <immintrin.h>

#include "avx2_partial.hpp"
#include "operations.hpp"
#include "quantize_int8/balanced_trits.hpp"
#include "quantize_int8/row_scale.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

// Entries 14 and 15 are never looked up.
constexpr TritTable<16> kTrits;

inline __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

// Whether elements of a row are known to be there or are looked for: a row's last may be none.
enum class Extent : bool { kWhole, kRest };

// Elements i...i + 7 as fp32; zeros where there are none.
template <FloatType kType, Extent kExtent>
inline __m256 load_floats(const unsigned char* from, std::size_t i, std::size_t elements) {
  constexpr bool kWhole = kExtent == Extent::kWhole;
  if (!kWhole && i >= elements) return _mm256_setzero_ps();
  constexpr std::size_t kBytes = float_bytes(kType);
  from += i * kBytes;
  const std::size_t left = kWhole ? 8 : elements - i;
  if constexpr (kType == FloatType::kFloat32) {
    return _mm256_castsi256_ps(load_words(from, left));
  } else {
    unsigned char last[16];
    if (left < 8) {
      std::memset(last, 0, sizeof last);
      std::memcpy(last, from, left * 2);
      from = last;
    }
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    if constexpr (kType == FloatType::kFloat16) return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
}

// Elements i...i + 3 as bits of fp64; zeros where there are none.
template <Extent kExtent>
inline __m256i load_doubles(const unsigned char* from, std::size_t i, std::size_t elements) {
  if constexpr (kExtent == Extent::kWhole) return load(from + i * 8);
  return i < elements ? load_words(from + i * 8, 2 * (elements - i)) : _mm256_setzero_si256();
}

// The largest magnitude, as the bits of an fp32 (of an fp64 for fp64): integers, so that a NaN
// wins.
template <FloatType kType>
class LargestMagnitude {
 public:
  void take(const unsigned char* row, std::size_t elements) {
    std::size_t i = 0;
    for (; elements - i >= 16; i += 16) {
      take_eight<Extent::kWhole>(row, i, elements, largest_[0]);
      take_eight<Extent::kWhole>(row, i + 8, elements, largest_[1]);
    }
    for (; i < elements; i += 8) take_eight<Extent::kRest>(row, i, elements, largest_[0]);
  }
  std::uint64_t bits() const {
    if constexpr (kType == FloatType::kFloat64) {
      std::uint64_t lanes[8];
      std::memcpy(lanes, largest_, sizeof lanes);
      std::uint64_t result = 0;
      for (const std::uint64_t lane : lanes) result = lane > result ? lane : result;
      return result;
    } else {
      const __m256i eight = _mm256_max_epi32(largest_[0], largest_[1]);
      __m128i four =
          _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
      four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4E));
      four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xB1));
      return static_cast<std::uint32_t>(_mm_cvtsi128_si32(four));
    }
  }

 private:
  template <Extent kExtent>
  static void take_eight(const unsigned char* row, std::size_t i, std::size_t elements,
                         __m256i& largest) {
    if constexpr (kType == FloatType::kFloat64) {
      const __m256i magnitude_bits = _mm256_set1_epi64x(INT64_MAX);
      for (std::size_t at = i; at < i + 8; at += 4) {
        const __m256i magnitude =
            _mm256_and_si256(load_doubles<kExtent>(row, at, elements), magnitude_bits);
        largest = _mm256_blendv_epi8(largest, magnitude, _mm256_cmpgt_epi64(magnitude, largest));
      }
    } else {
      const __m256i bits = _mm256_castps_si256(load_floats<kType, kExtent>(row, i, elements));
      largest = _mm256_max_epi32(largest, _mm256_and_si256(bits, _mm256_set1_epi32(INT32_MAX)));
    }
  }

  __m256i largest_[2] = {};
};

// The values of elements i...i + 31. |x * inverse| stays below 127.5, so nothing needs clamping.
template <FloatType kType, Extent kExtent>
inline __m256i quantize_32(const unsigned char* row, std::size_t i, std::size_t elements,
                           double inverse) {
  __m256i q[4];
  for (std::size_t part = 0; part < 4; ++part, i += 8) {
    if constexpr (kType == FloatType::kFloat64) {
      const __m256d factor = _mm256_set1_pd(inverse);
      const __m256d a = _mm256_castsi256_pd(load_doubles<kExtent>(row, i, elements));
      const __m256d b = _mm256_castsi256_pd(load_doubles<kExtent>(row, i + 4, elements));
      q[part] = _mm256_set_m128i(_mm256_cvtpd_epi32(_mm256_mul_pd(b, factor)),
                                 _mm256_cvtpd_epi32(_mm256_mul_pd(a, factor)));
    } else {
      const __m256 factor = _mm256_set1_ps(static_cast<float>(inverse));
      q[part] =
          _mm256_cvtps_epi32(_mm256_mul_ps(load_floats<kType, kExtent>(row, i, elements), factor));
    }
  }
  // Fours of each register's halves by turns.
  const __m256i fours =
      _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
  return _mm256_permutevar8x32_epi32(fours, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

inline __m256i pack_bytes(__m256i low, __m256i high) {
  return _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xD8);
}

// The first `left` bytes of 32.
inline void store_bytes(std::int8_t* to, __m256i bytes, std::size_t left) {
  if (left >= 32) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bytes);
  __m128i rest = _mm256_castsi256_si128(bytes);
  if ((left & 16) != 0) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), rest);
    rest = _mm256_extracti128_si256(bytes, 1);
    to += 16;
  }
  std::uint64_t eight = static_cast<std::uint64_t>(_mm_cvtsi128_si64(rest));
  if ((left & 8) != 0) {
    std::memcpy(to, &eight, 8);
    eight = static_cast<std::uint64_t>(_mm_extract_epi64(rest, 1));
    to += 8;
  }
  for (std::size_t bits = 4; bits > 0; bits /= 2) {
    if ((left & bits) == 0) continue;
    std::memcpy(to, &eight, bits);
    eight >>= 8 * bits;
    to += bits;
  }
}

struct Bits {
  __m256i nonzero;
  __m256i negative;
};

// Bits 3, 4, 5 of a byte: the three trits of a value of -13...13.
inline Bits three_trits(__m256i values, __m256i nonzero_table, __m256i negative_table) {
  const __m256i magnitude = _mm256_abs_epi8(values);
  const __m256i nonzero = _mm256_shuffle_epi8(nonzero_table, magnitude);
  const __m256i below_zero = _mm256_cmpgt_epi8(_mm256_setzero_si256(), values);
  const __m256i negative = _mm256_xor_si256(_mm256_shuffle_epi8(negative_table, magnitude),
                                            _mm256_and_si256(nonzero, below_zero));
  return {nonzero, negative};
}

struct Planes {
  std::uint32_t nonzero[kInt8Planes];
  std::uint32_t negative[kInt8Planes];
};

inline void split(__m256i values, Planes& planes) {
  const __m256i nonzero_table =
      _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(kTrits.nonzero)));
  const __m256i negative_table = _mm256_broadcastsi128_si256(
      _mm_load_si128(reinterpret_cast<const __m128i*>(kTrits.negative)));
  // round(q / 27): 1214 / 2^15 is 1/27 within 1.1e-5, and no q/27 lies nearer than 1/54 to a half.
  const __m256i reciprocal = _mm256_set1_epi16(1214);
  const __m256i base = _mm256_set1_epi16(27);
  const __m256i low = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(values));
  const __m256i high = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(values, 1));
  const __m256i h_low = _mm256_mulhrs_epi16(low, reciprocal);
  const __m256i h_high = _mm256_mulhrs_epi16(high, reciprocal);
  const __m256i l_low = _mm256_sub_epi16(low, _mm256_mullo_epi16(h_low, base));
  const __m256i l_high = _mm256_sub_epi16(high, _mm256_mullo_epi16(h_high, base));
  const Bits upper = three_trits(pack_bytes(h_low, h_high), nonzero_table, negative_table);
  const Bits lower = three_trits(pack_bytes(l_low, l_high), nonzero_table, negative_table);
  // Plane p < 3 is bit p + 3 of the upper part, plane p >= 3 bit p of the lower.
  const Bits joined{
      _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(upper.nonzero, 3), _mm256_set1_epi8(7)),
                      lower.nonzero),
      _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(upper.negative, 3), _mm256_set1_epi8(7)),
                      lower.negative)};
  for (std::size_t p = 0; p < kInt8Planes; ++p) {
    const int to_sign = static_cast<int>(7 - p);
    planes.nonzero[p] = static_cast<std::uint32_t>(
        _mm256_movemask_epi8(_mm256_slli_epi16(joined.nonzero, to_sign)));
    planes.negative[p] = static_cast<std::uint32_t>(
        _mm256_movemask_epi8(_mm256_slli_epi16(joined.negative, to_sign)));
  }
}

template <FloatType kType>
void quantize_as(const QuantizeInt8Args& args) {
  constexpr std::size_t kBytes = float_bytes(kType);
  const std::size_t row_words = blocks_of(args.columns) * kBlockWords;
  const std::size_t plane_words = args.plane_stride;
  for (std::size_t r = 0; r < args.rows; ++r) {
    const unsigned char* row = byte_offset(args.input, r * args.row_stride * kBytes);
    LargestMagnitude<kType> largest;
    largest.take(row, args.columns);
    const std::uint64_t bits = with_given<kType>(largest.bits(), args.magnitudes, r);
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

    const auto values_of = [&](std::size_t k) {
      if (!finite || k >= args.columns) return _mm256_setzero_si256();
      return args.columns - k >= 32
                 ? quantize_32<kType, Extent::kWhole>(row, k, args.columns, scale.inverse)
                 : quantize_32<kType, Extent::kRest>(row, k, args.columns, scale.inverse);
    };
    const std::size_t end = args.planes != nullptr ? row_words * 32 : args.columns;
    for (std::size_t k = 0; k < end; k += 64) {
      const __m256i values[2] = {values_of(k), values_of(k + 32)};
      if (args.values != nullptr && k < args.columns) {
        std::int8_t* to = args.values + r * args.columns + k;
        const std::size_t left = args.columns - k;
        store_bytes(to, values[0], left);
        if (left > 32) store_bytes(to + 32, values[1], left - 32);
      }
      if (args.planes == nullptr) continue;
      Planes low;
      Planes high;
      split(values[0], low);
      split(values[1], high);
      std::uint64_t* words = args.planes + r * row_words + word_of(k);
      for (std::size_t p = 0; p < kInt8Planes; ++p, words += plane_words) {
        words[0] = low.nonzero[p] | static_cast<std::uint64_t>(high.nonzero[p]) << 32;
        words[kPlaneWords] = low.negative[p] | static_cast<std::uint64_t>(high.negative[p]) << 32;
      }
    }
  }
}

}  // namespace

void quantize_int8(const QuantizeInt8Args& args) noexcept {
  with_type(args.type, [&](auto type) { quantize_as<type.value>(args); });
}

}  // namespace tfmbs::kernels::avx2
