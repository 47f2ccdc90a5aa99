// A byte table has 16 entries: q = 27 h + l with |h| <= 5 and |l| <= 13, and each part's three
// trits are looked up by its magnitude. The last elements of a row pass through a zeroed buffer
// of 64.
#include <arm_neon.h>

#include "neon_bits.hpp"
#include "operations.hpp"
#include "quantize_int8/balanced_trits.hpp"
#include "quantize_int8/row_scale.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::neon {
namespace {

// Entries 14 and 15 are never looked up.
constexpr TritTable<16> kTrits;

// Four elements as fp32.
template <FloatType kType>
inline float32x4_t load_floats(const unsigned char* from) {
  if constexpr (kType == FloatType::kFloat32) {
    return vreinterpretq_f32_u8(vld1q_u8(from));
  } else {
    const uint8x8_t halves = vld1_u8(from);
    if constexpr (kType == FloatType::kFloat16) return vcvt_f32_f16(vreinterpret_f16_u8(halves));
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(halves), 16));
  }
}

// The largest magnitude, as the bits of an fp32 (of an fp64 for fp64): integers, so that a NaN
// wins.
template <FloatType kType>
class LargestMagnitude {
 public:
  void take_64(const unsigned char* from) {
    constexpr std::size_t kBytes = float_bytes(kType);
    for (std::size_t i = 0; i < 64; i += 4) {
      const uint32x4_t bits = vreinterpretq_u32_f32(load_floats<kType>(from + i * kBytes));
      largest_ = vmaxq_u32(largest_, vandq_u32(bits, vdupq_n_u32(INT32_MAX)));
    }
  }
  [[nodiscard]] std::uint64_t bits() const { return vmaxvq_u32(largest_); }

 private:
  uint32x4_t largest_ = vdupq_n_u32(0);
};
template <>
class LargestMagnitude<FloatType::kFloat64> {
 public:
  void take_64(const unsigned char* from) {
    for (std::size_t i = 0; i < 64; i += 2) {
      const uint64x2_t bits = vreinterpretq_u64_u8(vld1q_u8(from + i * 8));
      const uint64x2_t magnitude = vandq_u64(bits, vdupq_n_u64(INT64_MAX));
      largest_ = vbslq_u64(vcgtq_u64(magnitude, largest_), magnitude, largest_);
    }
  }
  [[nodiscard]] std::uint64_t bits() const {
    const std::uint64_t lanes[2] = {vgetq_lane_u64(largest_, 0), vgetq_lane_u64(largest_, 1)};
    return lanes[0] > lanes[1] ? lanes[0] : lanes[1];
  }

 private:
  uint64x2_t largest_ = vdupq_n_u64(0);
};

// Four values of int16. |x * inverse| stays below 127.5, so nothing needs clamping.
template <FloatType kType>
inline int16x4_t quantize_4(const unsigned char* from, double inverse) {
  if constexpr (kType == FloatType::kFloat64) {
    const float64x2_t factor = vdupq_n_f64(inverse);
    const float64x2_t a = vmulq_f64(vreinterpretq_f64_u8(vld1q_u8(from)), factor);
    const float64x2_t b = vmulq_f64(vreinterpretq_f64_u8(vld1q_u8(from + 16)), factor);
    return vmovn_s32(vcombine_s32(vmovn_s64(vcvtnq_s64_f64(a)), vmovn_s64(vcvtnq_s64_f64(b))));
  } else {
    const float32x4_t factor = vdupq_n_f32(static_cast<float>(inverse));
    return vmovn_s32(vcvtnq_s32_f32(vmulq_f32(load_floats<kType>(from), factor)));
  }
}

struct Bits {
  uint8x16_t nonzero;
  uint8x16_t negative;
};

// Bits 3, 4, 5 of a byte: the three trits of a value of -13...13.
inline Bits three_trits(int8x16_t values) {
  const uint8x16_t magnitude = vreinterpretq_u8_s8(vabsq_s8(values));
  const uint8x16_t nonzero = vqtbl1q_u8(vld1q_u8(kTrits.nonzero), magnitude);
  const uint8x16_t negative = vqtbl1q_u8(vld1q_u8(kTrits.negative), magnitude);
  return {nonzero, veorq_u8(negative, vandq_u8(nonzero, vcltzq_s8(values)))};
}

// Bit p of a byte is the value's trit in plane p.
inline Bits six_trits(int16x8_t low, int16x8_t high) {
  // round(q / 27): 1214 / 2^15 is 1/27 within 1.1e-5, and no q/27 lies nearer than 1/54 to a half.
  const int16x8_t h_low = vqrdmulhq_n_s16(low, 1214);
  const int16x8_t h_high = vqrdmulhq_n_s16(high, 1214);
  const int16x8_t l_low = vmlsq_n_s16(low, h_low, 27);
  const int16x8_t l_high = vmlsq_n_s16(high, h_high, 27);
  const Bits upper = three_trits(vmovn_high_s16(vmovn_s16(h_low), h_high));
  const Bits lower = three_trits(vmovn_high_s16(vmovn_s16(l_low), l_high));
  // Plane p < 3 is bit p + 3 of the upper part, plane p >= 3 bit p of the lower.
  return {vsraq_n_u8(lower.nonzero, upper.nonzero, 3),
          vsraq_n_u8(lower.negative, upper.negative, 3)};
}

inline std::uint64_t plane(const uint8x16_t (&bits)[4], std::size_t p) {
  const uint8x16_t bit = vdupq_n_u8(static_cast<std::uint8_t>(1U << p));
  return bits_of_masks(vtstq_u8(bits[0], bit), vtstq_u8(bits[1], bit), vtstq_u8(bits[2], bit),
                       vtstq_u8(bits[3], bit));
}

template <FloatType kType>
void quantize_as(const QuantizeInt8Args& args) {
  constexpr std::size_t kBytes = float_bytes(kType);
  const std::size_t row_words = blocks_of(args.columns) * kBlockWords;
  for (std::size_t r = 0; r < args.rows; ++r) {
    const unsigned char* row = byte_offset(args.input, r * args.row_stride * kBytes);
    const std::size_t whole = args.columns / 64 * 64;
    unsigned char tail[64 * kBytes] = {};
    std::memcpy(tail, row + whole * kBytes, (args.columns - whole) * kBytes);

    LargestMagnitude<kType> largest;
    for (std::size_t k = 0; k < whole; k += 64) largest.take_64(row + k * kBytes);
    largest.take_64(tail);
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

    const std::size_t end = args.planes != nullptr ? row_words * 32 : args.columns;
    for (std::size_t k = 0; k < end; k += 64) {
      int16x8_t values[8];
      for (int16x8_t& eight : values) eight = vdupq_n_s16(0);
      if (finite && k < args.columns) {
        const unsigned char* from = k < whole ? row + k * kBytes : tail;
        for (std::size_t i = 0; i < 8; ++i, from += 8 * kBytes) {
          values[i] = vcombine_s16(quantize_4<kType>(from, scale.inverse),
                                   quantize_4<kType>(from + 4 * kBytes, scale.inverse));
        }
      }
      if (args.values != nullptr && k < args.columns) {
        std::int8_t* to = args.values + r * args.columns + k;
        std::int8_t last[64];
        std::int8_t* bytes = k < whole ? to : last;
        for (std::size_t i = 0; i < 8; ++i) vst1_s8(bytes + 8 * i, vmovn_s16(values[i]));
        if (k >= whole) std::memcpy(to, last, args.columns - k);
      }
      if (args.planes == nullptr) continue;
      uint8x16_t nonzero[4];
      uint8x16_t negative[4];
      for (std::size_t i = 0; i < 4; ++i) {
        const Bits trits = six_trits(values[2 * i], values[2 * i + 1]);
        nonzero[i] = trits.nonzero;
        negative[i] = trits.negative;
      }
      std::uint64_t* words = args.planes + r * row_words + word_of(k);
      for (std::size_t p = 0; p < kInt8Planes; ++p, words += args.plane_stride) {
        words[0] = plane(nonzero, p);
        words[kPlaneWords] = plane(negative, p);
      }
    }
  }
}

}  // namespace

void quantize_int8(const QuantizeInt8Args& args) noexcept {
  with_type(args.type, [&](auto type) { quantize_as<type.value>(args); });
}

}  // namespace tfmbs::kernels::neon
