// As AVX-512's, but a byte table has 16 entries here: q = 27 h + l with |h| <= 5 and |l| <= 13, and
// each part's three trits are looked up by its magnitude. The last elements of a row pass through a
// zeroed buffer of 64.
#include <immintrin.h>

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

// Eight elements as fp32.
template <FloatType kType>
inline __m256 load_floats(const unsigned char* from) {
  if constexpr (kType == FloatType::kFloat32) {
    return _mm256_castsi256_ps(load(from));
  } else {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    if constexpr (kType == FloatType::kFloat16) return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
}

// The largest magnitude, as the bits of an fp32 (of an fp64 for fp64): integers, so that a NaN
// wins.
template <FloatType kType>
class LargestMagnitude {
 public:
  void take_64(const unsigned char* from) {
    if constexpr (kType == FloatType::kFloat64) {
      const __m256i magnitude_bits = _mm256_set1_epi64x(INT64_MAX);
      for (std::size_t i = 0; i < 64; i += 4) {
        const __m256i magnitude = _mm256_and_si256(load(from + i * 8), magnitude_bits);
        largest_ = _mm256_blendv_epi8(largest_, magnitude, _mm256_cmpgt_epi64(magnitude, largest_));
      }
    } else {
      constexpr std::size_t kBytes = float_bytes(kType);
      const __m256i magnitude_bits = _mm256_set1_epi32(INT32_MAX);
      for (std::size_t i = 0; i < 64; i += 8) {
        const __m256i bits = _mm256_castps_si256(load_floats<kType>(from + i * kBytes));
        largest_ = _mm256_max_epi32(largest_, _mm256_and_si256(bits, magnitude_bits));
      }
    }
  }
  std::uint64_t bits() const {
    std::uint64_t result = 0;
    if constexpr (kType == FloatType::kFloat64) {
      std::uint64_t lanes[4];
      std::memcpy(lanes, &largest_, sizeof lanes);
      for (const std::uint64_t lane : lanes) result = lane > result ? lane : result;
    } else {
      std::uint32_t lanes[8];
      std::memcpy(lanes, &largest_, sizeof lanes);
      for (const std::uint32_t lane : lanes) result = lane > result ? lane : result;
    }
    return result;
  }

 private:
  __m256i largest_ = _mm256_setzero_si256();
};

// Sixteen values of int16. |x * inverse| stays below 127.5, so nothing needs clamping.
template <FloatType kType>
inline __m256i quantize_16(const unsigned char* from, double inverse) {
  __m256i low;
  __m256i high;
  if constexpr (kType == FloatType::kFloat64) {
    const __m256d factor = _mm256_set1_pd(inverse);
    __m128i q[4];
    for (std::size_t i = 0; i < 4; ++i) {
      const __m256d v = _mm256_mul_pd(_mm256_castsi256_pd(load(from + 32 * i)), factor);
      q[i] = _mm256_cvtpd_epi32(_mm256_round_pd(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    low = _mm256_set_m128i(q[1], q[0]);
    high = _mm256_set_m128i(q[3], q[2]);
  } else {
    constexpr std::size_t kBytes = float_bytes(kType);
    const __m256 factor = _mm256_set1_ps(static_cast<float>(inverse));
    const __m256 a = _mm256_mul_ps(load_floats<kType>(from), factor);
    const __m256 b = _mm256_mul_ps(load_floats<kType>(from + 8 * kBytes), factor);
    low = _mm256_cvtps_epi32(_mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    high = _mm256_cvtps_epi32(_mm256_round_ps(b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  return _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xD8);
}

inline __m256i pack_bytes(__m256i low, __m256i high) {
  return _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xD8);
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

// 32 values, given as two registers of int16.
inline void split(__m256i low, __m256i high, Planes& planes) {
  const __m256i nonzero_table =
      _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(kTrits.nonzero)));
  const __m256i negative_table = _mm256_broadcastsi128_si256(
      _mm_load_si128(reinterpret_cast<const __m128i*>(kTrits.negative)));
  // round(q / 27): 1214 / 2^15 is 1/27 within 1.1e-5, and no q/27 lies nearer than 1/54 to a half.
  const __m256i reciprocal = _mm256_set1_epi16(1214);
  const __m256i base = _mm256_set1_epi16(27);
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
    const std::size_t whole = args.columns / 64 * 64;
    unsigned char tail[64 * kBytes] = {};
    std::memcpy(tail, row + whole * kBytes, (args.columns - whole) * kBytes);

    LargestMagnitude<kType> largest;
    for (std::size_t k = 0; k < whole; k += 64) largest.take_64(row + k * kBytes);
    largest.take_64(tail);
    const std::uint64_t bits = largest.bits();
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

    const std::size_t end = args.planes != nullptr ? row_words * 32 : args.columns;
    for (std::size_t k = 0; k < end; k += 64) {
      __m256i values[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                           _mm256_setzero_si256()};
      if (finite && k < args.columns) {
        const unsigned char* from = k < whole ? row + k * kBytes : tail;
        for (std::size_t i = 0; i < 4; ++i) {
          values[i] = quantize_16<kType>(from + 16 * i * kBytes, scale.inverse);
        }
      }
      if (args.values != nullptr && k < args.columns) {
        std::int8_t* to = args.values + r * args.columns + k;
        std::int8_t last[64];
        std::int8_t* bytes = k < whole ? to : last;
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes), pack_bytes(values[0], values[1]));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(bytes + 32),
                            pack_bytes(values[2], values[3]));
        if (k >= whole) std::memcpy(to, last, args.columns - k);
      }
      if (args.planes == nullptr) continue;
      Planes low;
      Planes high;
      split(values[0], values[1], low);
      split(values[2], values[3], high);
      std::uint64_t* words =
          args.planes + r * row_words + k / kBlockTrits * kBlockWords + k % kBlockTrits / 64;
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
