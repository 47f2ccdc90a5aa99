// Floats are compared as integers (scalar.hpp says why); masks are narrowed to bytes and those
// added up to bits. The last elements of a row pass through a zeroed buffer of 64.
#include <arm_neon.h>

#include "neon_bits.hpp"
#include "operations.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::neon {
namespace {

// Sixteen elements are kRegisters registers. even() keeps the low half of every lane of two
// registers, which a mask may be cut to; odd() keeps the high half, in which the sign is.
struct Lanes16 {
  using Vector = uint16x8_t;
  static constexpr std::size_t kBytes = 2, kRegisters = 2;
  static Vector broadcast(std::uint64_t v) { return vdupq_n_u16(static_cast<std::uint16_t>(v)); }
  static Vector load(const unsigned char* from) { return vreinterpretq_u16_u8(vld1q_u8(from)); }
  static Vector magnitude(Vector v, Vector bits) { return vandq_u16(v, bits); }
  static Vector above(Vector a, Vector b) { return vcgtq_u16(a, b); }
  static Vector either(Vector a, Vector b) { return vorrq_u16(a, b); }
  static Vector without(Vector a, Vector b) { return vbicq_u16(a, b); }
  static uint8x16_t even(const Vector (&v)[kRegisters]) {
    return vuzp1q_u8(vreinterpretq_u8_u16(v[0]), vreinterpretq_u8_u16(v[1]));
  }
  static uint8x16_t odd(const Vector (&v)[kRegisters]) {
    return vuzp2q_u8(vreinterpretq_u8_u16(v[0]), vreinterpretq_u8_u16(v[1]));
  }
};

struct Lanes32 {
  using Vector = uint32x4_t;
  static constexpr std::size_t kBytes = 4, kRegisters = 4;
  static Vector broadcast(std::uint64_t v) { return vdupq_n_u32(static_cast<std::uint32_t>(v)); }
  static Vector load(const unsigned char* from) { return vreinterpretq_u32_u8(vld1q_u8(from)); }
  static Vector magnitude(Vector v, Vector bits) { return vandq_u32(v, bits); }
  static Vector above(Vector a, Vector b) { return vcgtq_u32(a, b); }
  static Vector either(Vector a, Vector b) { return vorrq_u32(a, b); }
  static Vector without(Vector a, Vector b) { return vbicq_u32(a, b); }
  static uint8x16_t even(const Vector (&v)[kRegisters]) {
    const auto half = [](Vector a, Vector b) {
      return vuzp1q_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b));
    };
    return Lanes16::even({half(v[0], v[1]), half(v[2], v[3])});
  }
  static uint8x16_t odd(const Vector (&v)[kRegisters]) {
    const auto half = [](Vector a, Vector b) {
      return vuzp2q_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b));
    };
    return Lanes16::odd({half(v[0], v[1]), half(v[2], v[3])});
  }
};

struct Lanes64 {
  using Vector = uint64x2_t;
  static constexpr std::size_t kBytes = 8, kRegisters = 8;
  static Vector broadcast(std::uint64_t v) { return vdupq_n_u64(v); }
  static Vector load(const unsigned char* from) { return vreinterpretq_u64_u8(vld1q_u8(from)); }
  static Vector magnitude(Vector v, Vector bits) { return vandq_u64(v, bits); }
  static Vector above(Vector a, Vector b) { return vcgtq_u64(a, b); }
  static Vector either(Vector a, Vector b) { return vorrq_u64(a, b); }
  static Vector without(Vector a, Vector b) { return vbicq_u64(a, b); }
  static uint8x16_t even(const Vector (&v)[kRegisters]) {
    const auto half = [](Vector a, Vector b) {
      return vuzp1q_u32(vreinterpretq_u32_u64(a), vreinterpretq_u32_u64(b));
    };
    return Lanes32::even({half(v[0], v[1]), half(v[2], v[3]), half(v[4], v[5]), half(v[6], v[7])});
  }
  static uint8x16_t odd(const Vector (&v)[kRegisters]) {
    const auto half = [](Vector a, Vector b) {
      return vuzp2q_u32(vreinterpretq_u32_u64(a), vreinterpretq_u32_u64(b));
    };
    return Lanes32::odd({half(v[0], v[1]), half(v[2], v[3]), half(v[4], v[5]), half(v[6], v[7])});
  }
};

template <typename L>
struct Limits {
  typename L::Vector magnitude_bits;
  typename L::Vector threshold;
  typename L::Vector infinity;
};

// 64 elements; what is not zero in `any_nan` stands for a NaN.
template <typename L>
inline void convert(const unsigned char* from, const Limits<L>& limits, typename L::Vector& any_nan,
                    std::uint64_t* words) {
  uint8x16_t nonzero[4];
  uint8x16_t negative[4];
  for (std::size_t i = 0; i < 4; ++i) {
    typename L::Vector bits[L::kRegisters];
    typename L::Vector set[L::kRegisters];
    for (std::size_t r = 0; r < L::kRegisters; ++r, from += 16) {
      bits[r] = L::load(from);
      const typename L::Vector magnitude = L::magnitude(bits[r], limits.magnitude_bits);
      const typename L::Vector nan = L::above(magnitude, limits.infinity);
      any_nan = L::either(any_nan, nan);
      set[r] = L::without(L::above(magnitude, limits.threshold), nan);
    }
    nonzero[i] = L::even(set);
    negative[i] = vandq_u8(nonzero[i], vcltzq_s8(vreinterpretq_s8_u8(L::odd(bits))));
  }
  words[0] = bits_of_masks(nonzero[0], nonzero[1], nonzero[2], nonzero[3]);
  words[kPlaneWords] = bits_of_masks(negative[0], negative[1], negative[2], negative[3]);
}

template <typename L>
void ternarize_as(const TernarizeArgs& args, FloatFormat format) {
  const std::size_t row_words = blocks_of(args.columns) * kBlockWords;
  Limits<L> limits{L::broadcast(format.sign - 1), L::broadcast(0), L::broadcast(format.infinity)};
  for (std::size_t r = 0; r < args.rows; ++r) {
    const unsigned char* row = byte_offset(args.input, r * args.row_stride * L::kBytes);
    std::uint64_t* planes = args.planes + r * row_words;
    limits.threshold = L::broadcast(
        threshold_magnitude(args.thresholds != nullptr ? args.thresholds[r] : 0.0, format));
    typename L::Vector any_nan = L::broadcast(0);
    for (std::size_t k = 0; k < row_words * 32; k += 64) {
      std::uint64_t* words = planes + word_of(k);
      if (k + 64 <= args.columns) {
        convert<L>(row + k * L::kBytes, limits, any_nan, words);
      } else if (k < args.columns) {
        unsigned char tail[64 * L::kBytes] = {};
        std::memcpy(tail, row + k * L::kBytes, (args.columns - k) * L::kBytes);
        convert<L>(tail, limits, any_nan, words);
      } else {
        words[0] = words[kPlaneWords] = 0;
      }
    }
    std::uint64_t halves[2];
    std::memcpy(halves, &any_nan, sizeof halves);
    args.nan_rows[r] = (halves[0] | halves[1]) != 0 ? 1 : 0;
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

}  // namespace tfmbs::kernels::neon
