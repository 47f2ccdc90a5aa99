// Values of the four float types in the tests, converted without the library's code: halves are
// looked up, not computed.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::linear {

// The value of a half's code: its fields are `fraction` bits, the exponent's, and the sign.
inline double decode_half(std::uint32_t code, bool bfloat16) {
  const int fraction_bits = bfloat16 ? 7 : 10;
  const int exponent_bits = 15 - fraction_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const std::uint32_t fraction = code & ((1U << fraction_bits) - 1);
  const int exponent = static_cast<int>(code >> fraction_bits & ((1U << exponent_bits) - 1));
  const double sign = (code & 0x8000U) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) {
    return fraction != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  }
  const double one = std::ldexp(1.0, fraction_bits);
  const double significand = fraction + (exponent == 0 ? 0.0 : one);
  return sign * std::ldexp(significand, (exponent == 0 ? 1 : exponent) - bias - fraction_bits);
}

// The nearest half, ties to even codes, by bisection over the codes.
inline std::uint16_t encode_half(double value, bool bfloat16) {
  const std::uint32_t infinity = bfloat16 ? 0x7F80 : 0x7C00;
  const std::uint32_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return static_cast<std::uint16_t>(infinity | 1);
  const double size = std::fabs(value);
  if (std::isinf(size)) return static_cast<std::uint16_t>(sign | infinity);
  std::uint32_t low = 0;  // decodes to `size` or less
  std::uint32_t high = infinity;
  while (high - low > 1) {
    const std::uint32_t middle = (low + high) / 2;
    (decode_half(middle, bfloat16) <= size ? low : high) = middle;
  }
  const double below = decode_half(low, bfloat16);
  // Infinity's place on the line is one step after the greatest value.
  const double above =
      high == infinity ? 2 * below - decode_half(low - 1, bfloat16) : decode_half(high, bfloat16);
  const double half = (below + above) / 2;
  const bool up = size > half || (size == half && low % 2 == 1);
  return static_cast<std::uint16_t>(sign | (up ? high : low));
}

inline void store(std::byte* to, kernels::FloatType type, double value) {
  if (type == kernels::FloatType::kFloat64) {
    std::memcpy(to, &value, sizeof(value));
  } else if (type == kernels::FloatType::kFloat32) {
    const auto single = static_cast<float>(value);
    std::memcpy(to, &single, sizeof(single));
  } else {
    const std::uint16_t half = encode_half(value, type == kernels::FloatType::kBFloat16);
    std::memcpy(to, &half, sizeof(half));
  }
}

inline double load(const std::byte* from, kernels::FloatType type) {
  if (type == kernels::FloatType::kFloat64) {
    double value = 0.0;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  if (type == kernels::FloatType::kFloat32) {
    float value = 0.0F;
    std::memcpy(&value, from, sizeof(value));
    return static_cast<double>(value);
  }
  std::uint16_t half = 0;
  std::memcpy(&half, from, sizeof(half));
  return decode_half(half, type == kernels::FloatType::kBFloat16);
}

// A row-major matrix of one of the types.
class Floats {
 public:
  Floats(kernels::FloatType type, std::size_t count)
      : type_(type), bytes_(count * kernels::float_bytes(type)) {}
  Floats(kernels::FloatType type, const std::vector<double>& values) : Floats(type, values.size()) {
    for (std::size_t i = 0; i < values.size(); ++i) set(i, values[i]);
  }
  [[nodiscard]] kernels::FloatType type() const noexcept { return type_; }
  [[nodiscard]] const std::byte* data() const noexcept { return bytes_.data(); }
  [[nodiscard]] std::byte* data() noexcept { return bytes_.data(); }
  [[nodiscard]] const std::vector<std::byte>& bytes() const noexcept { return bytes_; }
  [[nodiscard]] double at(std::size_t i) const {
    return load(bytes_.data() + i * kernels::float_bytes(type_), type_);
  }
  void set(std::size_t i, double value) {
    store(bytes_.data() + i * kernels::float_bytes(type_), type_, value);
  }

 private:
  kernels::FloatType type_;
  std::vector<std::byte> bytes_;
};

}  // namespace tfmbs::linear
