// Scalar pieces that several implementations share. Everything is in an anonymous namespace and
// calls no std:: template, so that a file built with special instruction-set flags may include it:
// each file keeps a copy of its own (docs/kernels.md, "One definition").
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::kernels {
namespace {

// bit_plane_blocks(), bit_plane_word() and float_bytes() for these files.
inline std::size_t blocks_of(std::size_t trits) { return (trits + kBlockTrits - 1) / kBlockTrits; }
inline std::size_t word_of(std::size_t k) {
  return k / kBlockTrits * kBlockWords + k % kBlockTrits / 64;
}
inline std::size_t bytes_of(FloatType type) {
  return type == FloatType::kFloat64 ? 8 : type == FloatType::kFloat32 ? 4 : 2;
}

inline std::uint64_t double_bits(double value) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline std::uint32_t float_bits(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline double double_from_bits(std::uint64_t bits) {
  double value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline float float_from_bits(std::uint32_t bits) {
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// An IEEE 754 binary format of at most 64 bits, as integers. Magnitudes (the bits without the sign)
// order as the values do, which makes every comparison exact and free of the denormal flags.
struct FloatFormat {
  int mantissa_bits;
  int bias;
  std::uint64_t infinity;  // magnitude; above it stand the NaNs
  std::uint64_t sign;
  std::uint64_t nan;  // the one NaN that the kernels write
};
inline constexpr FloatFormat kFloat64Format{52, 1023, 0x7FF0000000000000, 0x8000000000000000,
                                            0x7FF8000000000000};
inline constexpr FloatFormat kFloat32Format{23, 127, 0x7F800000, 0x80000000, 0x7FC00000};
inline constexpr FloatFormat kBFloat16Format{7, 127, 0x7F80, 0x8000, 0x7FC0};
inline constexpr FloatFormat kFloat16Format{10, 15, 0x7C00, 0x8000, 0x7E00};

inline FloatFormat format_of(FloatType type) {
  switch (type) {
    case FloatType::kFloat64:
      return kFloat64Format;
    case FloatType::kBFloat16:
      return kBFloat16Format;
    case FloatType::kFloat16:
      return kFloat16Format;
    case FloatType::kFloat32:
      break;
  }
  return kFloat32Format;
}

inline constexpr std::uint64_t kMantissa64 = (std::uint64_t{1} << 52) - 1;

// Magnitude of the largest value of the format that is not above |threshold|: x > threshold holds
// exactly where |x|'s magnitude is above it. A NaN threshold gives the largest magnitude there is,
// which nothing exceeds.
inline std::uint64_t threshold_magnitude(double threshold, FloatFormat format) {
  const std::uint64_t magnitude = double_bits(threshold) & ~kFloat64Format.sign;
  if (magnitude > kFloat64Format.infinity) return format.sign - 1;
  if (magnitude == kFloat64Format.infinity) return format.infinity;
  if (format.mantissa_bits == 52) return magnitude;
  const int field = static_cast<int>(magnitude >> 52);
  if (field == 0) return 0;  // a denormal double lies below every other format's smallest value
  const int exponent = field - kFloat64Format.bias;
  if (exponent > format.bias) return format.infinity - 1;
  const int target = exponent + format.bias;
  int shift = 52 - format.mantissa_bits;
  if (target > 0) {
    return (static_cast<std::uint64_t>(target) << format.mantissa_bits) |
           ((magnitude & kMantissa64) >> shift);
  }
  shift += 1 - target;
  return shift < 64 ? ((magnitude & kMantissa64) | (kMantissa64 + 1)) >> shift : 0;
}

// Rounds to the format, to nearest, ties to even, once; NaN becomes the format's one NaN.
inline std::uint64_t round_to_format(double value, FloatFormat format) {
  const std::uint64_t bits = double_bits(value);
  const std::uint64_t magnitude = bits & ~kFloat64Format.sign;
  if (magnitude > kFloat64Format.infinity) return format.nan;
  const std::uint64_t sign = (bits >> 63) != 0 ? format.sign : 0;
  if (format.mantissa_bits == 52) return sign | magnitude;
  const int field = static_cast<int>(magnitude >> 52);
  if (field == 0) return sign;
  int target = field - kFloat64Format.bias + format.bias;
  int shift = 52 - format.mantissa_bits;
  if (target <= 0) {
    shift += 1 - target;
    target = 1;
  }
  if (shift > 54) return sign;  // below half of the smallest value
  const std::uint64_t mantissa = (magnitude & kMantissa64) | (kMantissa64 + 1);
  std::uint64_t rounded = mantissa >> shift;
  const std::uint64_t rest = mantissa & ((std::uint64_t{1} << shift) - 1);
  const std::uint64_t half = std::uint64_t{1} << (shift - 1);
  if (rest > half || (rest == half && (rounded & 1) != 0)) ++rounded;
  // The implicit bit carries into the exponent, and so does a mantissa that rounded up.
  rounded += static_cast<std::uint64_t>(target - 1) << format.mantissa_bits;
  return sign | (rounded < format.infinity ? rounded : format.infinity);
}

// Calls function(TypeConstant<type>{}): what follows is compiled once a type.
template <FloatType kType>
struct TypeConstant {
  static constexpr FloatType value = kType;
};
template <typename Function>
void with_type(FloatType type, Function function) {
  switch (type) {
    case FloatType::kFloat64:
      return function(TypeConstant<FloatType::kFloat64>{});
    case FloatType::kFloat32:
      return function(TypeConstant<FloatType::kFloat32>{});
    case FloatType::kBFloat16:
      return function(TypeConstant<FloatType::kBFloat16>{});
    case FloatType::kFloat16:
      return function(TypeConstant<FloatType::kFloat16>{});
  }
}

inline float float_from_bfloat16(std::uint16_t bits) {
  return float_from_bits(static_cast<std::uint32_t>(bits) << 16);
}

inline float float_from_float16(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
  const std::uint32_t magnitude = bits & 0x7FFFU;
  if (magnitude < 0x400) {  // zero and denormals: magnitude * 2^-24, exact
    const float value = static_cast<float>(magnitude) * 0x1p-24F;
    return float_from_bits(float_bits(value) | sign);
  }
  const std::uint32_t rebias = magnitude < 0x7C00 ? 112U << 23 : 224U << 23;
  return float_from_bits(((magnitude << 13) + rebias) | sign);
}

// fp32 to bf16 with integers only; NaN becomes the one NaN.
inline std::uint16_t bfloat16_from_float(float value) {
  const std::uint32_t bits = float_bits(value);
  if ((bits & 0x7FFFFFFF) > kFloat32Format.infinity) {
    return static_cast<std::uint16_t>(kBFloat16Format.nan);
  }
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

inline const unsigned char* byte_offset(const void* base, std::size_t bytes) {
  return static_cast<const unsigned char*>(base) + bytes;
}
inline unsigned char* byte_offset(void* base, std::size_t bytes) {
  return static_cast<unsigned char*>(base) + bytes;
}

// Element i of an array of `type`, as fp32 (fp64 is rounded) or as fp64.
inline double load_double(const void* base, FloatType type, std::size_t i) {
  std::uint16_t half = 0;
  switch (type) {
    case FloatType::kFloat64: {
      double value = 0;
      std::memcpy(&value, byte_offset(base, i * 8), sizeof value);
      return value;
    }
    case FloatType::kBFloat16:
      std::memcpy(&half, byte_offset(base, i * 2), sizeof half);
      return static_cast<double>(float_from_bfloat16(half));
    case FloatType::kFloat16:
      std::memcpy(&half, byte_offset(base, i * 2), sizeof half);
      return static_cast<double>(float_from_float16(half));
    case FloatType::kFloat32:
      break;
  }
  float value = 0;
  std::memcpy(&value, byte_offset(base, i * 4), sizeof value);
  return static_cast<double>(value);
}
inline float load_float(const void* base, FloatType type, std::size_t i) {
  return static_cast<float>(load_double(base, type, i));
}

}  // namespace
}  // namespace tfmbs::kernels
