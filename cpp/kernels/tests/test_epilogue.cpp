#include <cmath>
#include <stdexcept>

#include "kernel_test.hpp"

namespace tfmbs::kernels::test {
namespace {

struct Case {
  std::size_t rows{0};
  std::size_t outputs{0};
  std::size_t accumulator_stride{0};
  std::size_t out_stride{0};
  std::vector<std::int32_t> accumulators;
  std::vector<double> scaled_accumulators;  // in their place; empty: none
  std::vector<double> row_scales;           // empty: none
  std::vector<double> output_scales;        // empty: none; one: step 0
  FloatMatrix bias{FloatType::kFloat32, 0, 0, 0};
  std::vector<std::uint8_t> nan_rows;
  std::vector<std::uint8_t> nan_outputs;
  FloatType out_type{FloatType::kFloat32};
  bool wide{false};
  bool relu{false};
};

template <typename T>
const T* data_or_null(const std::vector<T>& values) {
  return values.empty() ? nullptr : values.data();
}

template <typename Real>
Real expected_value(Case& c, std::size_t m, std::size_t n) {
  if (!c.nan_rows.empty() && c.nan_rows[m] != 0) return std::numeric_limits<Real>::quiet_NaN();
  if (!c.nan_outputs.empty() && c.nan_outputs[n] != 0)
    return std::numeric_limits<Real>::quiet_NaN();
  const Real row = c.row_scales.empty() ? Real{1} : static_cast<Real>(c.row_scales[m]);
  const Real column = c.output_scales.empty()
                          ? Real{1}
                          : static_cast<Real>(c.output_scales[c.output_scales.size() == 1 ? 0 : n]);
  const Real scale = row * column;
  const std::size_t at = m * c.accumulator_stride + n;
  const Real sum = c.scaled_accumulators.empty() ? static_cast<Real>(c.accumulators[at])
                                                 : static_cast<Real>(c.scaled_accumulators[at]);
  Real value = sum * scale;
  if (c.bias.rows > 0) value = value + static_cast<Real>(c.bias.get(0, n));
  if (c.relu && value < Real{0}) return Real{0};
  return value;
}

class Epilogue : public KernelTest {
 protected:
  void check(Case& c) {
    FloatMatrix out(c.out_type, c.rows, c.outputs, c.out_stride);
    for (unsigned char& byte : out.bytes) byte = 0x5A;
    FloatMatrix expected = out;
    for (std::size_t m = 0; m < c.rows; ++m) {
      for (std::size_t n = 0; n < c.outputs; ++n) {
        // put() rounds a double once, so an fp32 value passes through it unchanged; NaNs are
        // compared as bits: positive, quiet, no payload.
        const double value = c.wide ? expected_value<double>(c, m, n)
                                    : static_cast<double>(expected_value<float>(c, m, n));
        expected.put(m, n, std::isnan(value) ? std::numeric_limits<double>::quiet_NaN() : value);
      }
    }
    const std::vector<float> singles(c.scaled_accumulators.begin(), c.scaled_accumulators.end());
    const void* scaled = c.scaled_accumulators.empty() ? nullptr
                         : c.wide ? static_cast<const void*>(c.scaled_accumulators.data())
                                  : static_cast<const void*>(singles.data());
    GetParam().epilogue({.accumulators = scaled == nullptr ? c.accumulators.data() : nullptr,
                         .rows = c.rows,
                         .outputs = c.outputs,
                         .accumulator_stride = c.accumulator_stride,
                         .row_scales = data_or_null(c.row_scales),
                         .output_scales = data_or_null(c.output_scales),
                         .output_scale_step = c.output_scales.size() == 1 ? std::size_t{0} : 1,
                         .bias = c.bias.rows > 0 ? c.bias.bytes.data() : nullptr,
                         .bias_type = c.bias.type,
                         .nan_rows = data_or_null(c.nan_rows),
                         .nan_outputs = data_or_null(c.nan_outputs),
                         .out = out.bytes.data(),
                         .out_type = c.out_type,
                         .out_stride = c.out_stride,
                         .wide = c.wide,
                         .relu = c.relu,
                         .scaled_accumulators = scaled});
    for (std::size_t m = 0; m < c.rows; ++m) {
      for (std::size_t n = 0; n < c.outputs; ++n) {
        ASSERT_EQ(std::memcmp(out.at(m, n), expected.at(m, n), float_bytes(c.out_type)), 0)
            << "row " << m << ", output " << n << ": " << out.get(m, n) << ", expected "
            << expected.get(m, n) << "; out type " << static_cast<int>(c.out_type) << ", bias type "
            << static_cast<int>(c.bias.type) << (c.wide ? ", wide" : "")
            << (c.relu ? ", relu" : "");
      }
    }
    ASSERT_EQ(out.bytes, expected.bytes) << "wrote between rows";
  }
};

Case random_case(Random& random, FloatType out_type, FloatType bias_type, bool wide) {
  Case c;
  c.rows = random.below(6);
  c.outputs = random.below(71);
  c.accumulator_stride = c.outputs + random.below(3);
  c.out_stride = c.outputs + random.below(3);
  c.out_type = out_type;
  c.wide = wide;
  c.relu = random.chance(0.5);
  const std::size_t range = random.chance(0.5) ? 2000 : 0x7FFFFFFF;
  for (std::size_t i = 0; i < c.rows * c.accumulator_stride; ++i) {
    c.accumulators.push_back(static_cast<std::int32_t>(random.below(range)) -
                             static_cast<std::int32_t>(range / 2));
  }
  const bool scaled = random.chance(0.3);
  const auto scale = [&] {
    const double value = std::ldexp(random.real(-1, 1), static_cast<int>(random.below(40)) - 30);
    return wide ? value : static_cast<double>(static_cast<float>(value));
  };
  if (random.chance(0.7)) {
    for (std::size_t m = 0; m < c.rows; ++m) c.row_scales.push_back(scale());
  }
  for (std::size_t i = 0; scaled && i < c.rows * c.accumulator_stride; ++i) {
    c.scaled_accumulators.push_back(std::ldexp(scale(), 20));
  }
  if (!scaled && random.chance(0.7)) {
    const std::size_t count = random.chance(0.5) ? 1 : c.outputs;
    for (std::size_t n = 0; n < count; ++n) c.output_scales.push_back(scale());
  }
  if (random.chance(0.7)) {
    c.bias = FloatMatrix(bias_type, 1, c.outputs, c.outputs);
    for (std::size_t n = 0; n < c.outputs; ++n) c.bias.put(0, n, random.real(-4, 4));
  }
  if (random.chance(0.4)) {
    for (std::size_t m = 0; m < c.rows; ++m) c.nan_rows.push_back(random.chance(0.3) ? 1 : 0);
  }
  if (random.chance(0.4)) {
    for (std::size_t n = 0; n < c.outputs; ++n) c.nan_outputs.push_back(random.chance(0.3) ? 1 : 0);
  }
  return c;
}

TEST_P(Epilogue, EveryTypeRandomShapes) {
  std::uint64_t index = 0;
  for (const FloatType out_type : kFloatTypes) {
    for (const FloatType bias_type : kFloatTypes) {
      for (const bool wide : {false, true}) {
        for (int i = 0; i < 20; ++i, ++index) {
          SCOPED_TRACE("seed " + std::to_string(case_seed(index)));
          Random random(case_seed(index));
          Case c = random_case(random, out_type, bias_type, wide);
          ASSERT_NO_FATAL_FAILURE(check(c));
        }
      }
    }
  }
}

// Sums at which fp32, bf16 and fp16 round, tie, become denormal and overflow; infinities and NaNs
// that the arithmetic makes.
TEST_P(Epilogue, RoundingAndSpecialValues) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const std::vector<std::int32_t> sums = {
      0,          1,           -1,         3,
      255,        256,         257,        258,
      259,        385,         2047,       2048,
      2049,       2050,        2051,       65504,
      65519,      65520,       65535,      16777215,
      16777216,   16777217,    16777219,   33554433,
      2130706432, -2130706432, 2147483647, std::numeric_limits<std::int32_t>::min()};
  for (const FloatType out_type : kFloatTypes) {
    for (const bool wide : {false, true}) {
      for (const double scale :
           {1.0, -1.0, 0.0, -0.0, 0x1p-24, 0x1p-25, 0x1p-15, 0x1.8p-24, 0x1p100, 0x1p-126, 0x1p-149,
            0x1p-140, kInfinity, -kInfinity, std::nan("")}) {
        for (const double bias : {0.0, -0.0, 1.0, kInfinity, std::nan("")}) {
          Case c;
          c.rows = 1;
          c.outputs = c.accumulator_stride = c.out_stride = sums.size();
          c.accumulators = sums;
          c.row_scales = {scale};
          c.out_type = out_type;
          c.wide = wide;
          c.bias = FloatMatrix(FloatType::kFloat32, 1, sums.size(), sums.size());
          for (std::size_t n = 0; n < sums.size(); ++n) c.bias.put(0, n, bias);
          for (const bool relu : {false, true}) {
            c.relu = relu;
            c.bias.rows = 1;
            ASSERT_NO_FATAL_FAILURE(check(c)) << "scale " << scale << ", bias " << bias;
            c.bias.rows = 0;
            ASSERT_NO_FATAL_FAILURE(check(c)) << "scale " << scale;
          }
          c.scaled_accumulators = {0.0,  -0.0,      1.5,        -0x1p-149,    0x1p-1074,    0x1p127,
                                   1e30, kInfinity, -kInfinity, std::nan(""), -std::nan("")};
          c.outputs = c.accumulator_stride = c.out_stride = c.scaled_accumulators.size();
          for (const bool relu : {false, true}) {
            c.relu = relu;
            ASSERT_NO_FATAL_FAILURE(check(c)) << "scaled, scale " << scale;
          }
        }
      }
    }
  }
}

TFMBS_FOR_EVERY_SET(Epilogue);

}  // namespace
}  // namespace tfmbs::kernels::test
