// Every operation is tested the same way: each set of the list is run on each case, and compared,
// bit for bit, with a loop that knows nothing of bit planes (or with the portable set that passed
// it).
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <ostream>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "test_share.hpp"
#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::kernels {

inline void PrintTo(const KernelSet& set, std::ostream* out) { *out << set.name; }

namespace test {

class KernelTest : public ::testing::TestWithParam<KernelSet> {
 protected:
  void SetUp() override {
    if (!GetParam().supported()) {
      GTEST_SKIP() << "this CPU does not support the kernel set \"" << GetParam().name << '"';
    }
  }
};

inline std::string set_name(const ::testing::TestParamInfo<KernelSet>& info) {
  return std::string(info.param.name);
}

inline std::vector<KernelSet> every_set() { return {all_kernels().begin(), all_kernels().end()}; }

// Whether a variant before it in the list, with which it is tested, has the same function.
template <typename Function>
bool is_inherited(const KernelSet& set, Function KernelSet::* operation) {
  for (const KernelSet& other : all_kernels()) {
    if (other.name == set.name) return false;
    if (other.*operation == set.*operation) return true;
  }
  return false;
}

using testing::case_count;
using testing::case_seed;
using testing::test_percent;

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  std::size_t below(std::size_t limit) { return static_cast<std::size_t>(engine_() % limit); }
  std::size_t from_to(std::size_t low, std::size_t high) { return low + below(high - low + 1); }
  double real(double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(engine_);
  }
  bool chance(double probability) { return real(0, 1) < probability; }
  std::uint64_t bits() { return engine_(); }

 private:
  std::mt19937_64 engine_;
};

struct TritMatrix {
  std::vector<std::int8_t> trits;
  BitPlaneMatrix planes;
};

// zeros: the share of trits that are 0; 1 gives all zeros.
inline TritMatrix random_trits(Random& random, std::size_t rows, std::size_t columns,
                               double zeros) {
  TritMatrix matrix;
  matrix.trits.resize(rows * columns);
  for (std::int8_t& trit : matrix.trits) {
    trit = random.chance(zeros) ? std::int8_t{0}
           : random.chance(0.5) ? std::int8_t{1}
                                : std::int8_t{-1};
  }
  auto packed = pack_bit_planes(matrix.trits, rows, columns);
  if (!packed.ok()) throw std::runtime_error(packed.error().message);
  matrix.planes = std::move(packed).value();
  return matrix;
}

inline TritMatrix constant_trits(std::size_t rows, std::size_t columns, std::int8_t trit) {
  TritMatrix matrix;
  matrix.trits.assign(rows * columns, trit);
  auto packed = pack_bit_planes(matrix.trits, rows, columns);
  if (!packed.ok()) throw std::runtime_error(packed.error().message);
  matrix.planes = std::move(packed).value();
  return matrix;
}

inline constexpr FloatType kFloatTypes[] = {FloatType::kFloat32, FloatType::kFloat64,
                                            FloatType::kBFloat16, FloatType::kFloat16};

// --- an independent reading and writing of the small formats, by value and not by bit tricks
// -------

inline double small_value(std::uint16_t bits, int mantissa_bits, int bias) {
  const int exponent_bits = 15 - mantissa_bits;
  const int field = (bits & 0x7FFF) >> mantissa_bits;
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (field == (1 << exponent_bits) - 1) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  if (field == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << mantissa_bits), field - bias - mantissa_bits);
}
inline double value_of(FloatType type, const void* from) {
  std::uint16_t half = 0;
  float single = 0;
  double value = 0;
  switch (type) {
    case FloatType::kFloat64:
      std::memcpy(&value, from, sizeof value);
      return value;
    case FloatType::kFloat32:
      std::memcpy(&single, from, sizeof single);
      return static_cast<double>(single);
    case FloatType::kBFloat16:
      std::memcpy(&half, from, sizeof half);
      return small_value(half, 7, 127);
    case FloatType::kFloat16:
      std::memcpy(&half, from, sizeof half);
      return small_value(half, 10, 15);
  }
  return value;
}

// Rounds to the nearest value of a small format, ties to even, by arithmetic on the value.
inline std::uint16_t small_bits(double value, int mantissa_bits, int bias) {
  const int exponent_bits = 15 - mantissa_bits;
  const auto infinity = static_cast<std::uint16_t>(((1 << exponent_bits) - 1) << mantissa_bits);
  if (std::isnan(value)) return static_cast<std::uint16_t>(infinity | 1 << (mantissa_bits - 1));
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(value);
  if (std::isinf(value)) return sign | infinity;
  int exponent = magnitude == 0 ? 1 - bias : std::ilogb(magnitude);
  if (exponent < 1 - bias) exponent = 1 - bias;
  // In units of the last place; exact, because the scaling is by a power of two.
  const double units = std::nearbyint(std::ldexp(magnitude, mantissa_bits - exponent));
  const double result = std::ldexp(units, exponent - mantissa_bits);
  if (result >= std::ldexp(1.0, bias + 1)) return sign | infinity;
  if (result == 0) return sign;
  const int field = std::ilogb(result) + bias;
  if (field < 1)
    return sign | static_cast<std::uint16_t>(std::ldexp(result, bias - 1 + mantissa_bits));
  const double mantissa = std::ldexp(result, mantissa_bits - (field - bias)) - (1 << mantissa_bits);
  return sign | static_cast<std::uint16_t>((field << mantissa_bits) + static_cast<int>(mantissa));
}
inline void put_value(FloatType type, double value, void* to) {
  const float single = static_cast<float>(value);
  std::uint16_t half = 0;
  switch (type) {
    case FloatType::kFloat64:
      std::memcpy(to, &value, sizeof value);
      return;
    case FloatType::kFloat32:
      std::memcpy(to, &single, sizeof single);
      return;
    case FloatType::kBFloat16:
      half = small_bits(value, 7, 127);
      break;
    case FloatType::kFloat16:
      half = small_bits(value, 10, 15);
      break;
  }
  std::memcpy(to, &half, sizeof half);
}

// A matrix of floats of one type, its rows `stride` elements apart.
struct FloatMatrix {
  FloatType type{FloatType::kFloat32};
  std::size_t rows{0};
  std::size_t columns{0};
  std::size_t stride{0};
  std::vector<unsigned char> bytes;

  FloatMatrix(FloatType element, std::size_t height, std::size_t width, std::size_t row_stride)
      : type(element),
        rows(height),
        columns(width),
        stride(row_stride),
        bytes(height * row_stride * float_bytes(element)) {}
  void* at(std::size_t r, std::size_t k) {
    return bytes.data() + (r * stride + k) * float_bytes(type);
  }
  double get(std::size_t r, std::size_t k) { return value_of(type, at(r, k)); }
  void put(std::size_t r, std::size_t k, double value) { put_value(type, value, at(r, k)); }
};

}  // namespace test
}  // namespace tfmbs::kernels

// One test case for every set of the list.
#define TFMBS_FOR_EVERY_SET(suite)                                                   \
  INSTANTIATE_TEST_SUITE_P(Kernels, suite,                                           \
                           ::testing::ValuesIn(::tfmbs::kernels::test::every_set()), \
                           ::tfmbs::kernels::test::set_name)
