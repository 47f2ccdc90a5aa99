// int8_linear against loops over the formulas of kernels.hpp, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tfmbs/decode/int8_rows.hpp"
#include "threaded_executor.hpp"

namespace tfmbs::decode {
namespace {

using execution::SerialExecutor;
using execution::ThreadedExecutor;
using kernels::FloatType;

struct Quantized {
  std::vector<std::int8_t> values;
  std::vector<float> scales;
  std::vector<bool> is_nan;
};

Quantized quantize(const std::vector<float>& from, std::size_t rows, std::size_t columns) {
  Quantized made{std::vector<std::int8_t>(from.size()), std::vector<float>(rows, 1.0F),
                 std::vector<bool>(rows)};
  for (std::size_t r = 0; r < rows; ++r) {
    float largest = 1e-5F;
    for (std::size_t k = 0; k < columns; ++k) {
      const float x = from[r * columns + k];
      if (!std::isfinite(x)) made.is_nan[r] = true;
      largest = std::max(largest, std::fabs(x));
    }
    if (made.is_nan[r]) continue;
    const float inverse = 127.0F / largest;
    made.scales[r] = largest / 127.0F;
    for (std::size_t k = 0; k < columns; ++k) {
      const float q = std::nearbyint(from[r * columns + k] * inverse);
      made.values[r * columns + k] = static_cast<std::int8_t>(std::clamp(q, -127.0F, 127.0F));
    }
  }
  return made;
}

void check(std::uint64_t seed, const execution::Executor& executor) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::size_t samples = random() % 20;
  const std::size_t outputs = random() % 300;
  const std::size_t depth = 1 + random() % 200;
  const bool has_bias = random() % 2 == 0;
  std::normal_distribution<float> normal;
  const auto values = [&](std::size_t size) {
    std::vector<float> made(size);
    for (float& value : made) {
      value = normal(random);
      if (random() % 2000 == 0) value = std::numeric_limits<float>::infinity();
    }
    return made;
  };
  const std::vector<float> weights = values(outputs * depth);
  const std::vector<float> inputs = values(samples * depth);
  const std::vector<float> bias = values(outputs);
  std::vector<std::int8_t> rows(outputs * depth);
  std::vector<double> scales(outputs);
  std::vector<std::uint8_t> nan_rows(outputs);
  quantize_rows({weights.data(), FloatType::kFloat32, outputs, depth}, rows.data(), scales.data(),
                nan_rows.data(), executor);
  std::vector<float> out(samples * outputs, 99.0F);
  int8_linear({.values = rows.data(),
               .outputs = outputs,
               .depth = depth,
               .scales = scales.data(),
               .nan_rows = nan_rows.data()},
              {.input = inputs.data(),
               .samples = samples,
               .bias = has_bias ? bias.data() : nullptr,
               .output = out.data()},
              executor);

  const Quantized w = quantize(weights, outputs, depth);
  const Quantized x = quantize(inputs, samples, depth);
  EXPECT_EQ(rows, w.values);
  for (std::size_t m = 0; m < samples; ++m) {
    for (std::size_t n = 0; n < outputs; ++n) {
      const float got = out[m * outputs + n];
      if (w.is_nan[n] || x.is_nan[m]) {
        ASSERT_TRUE(std::isnan(got));
        continue;
      }
      int sum = 0;
      for (std::size_t k = 0; k < depth; ++k) {
        sum += w.values[n * depth + k] * x.values[m * depth + k];
      }
      float expected = static_cast<float>(sum) * (x.scales[m] * w.scales[n]);
      if (has_bias) expected += bias[n];
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(got));
      } else {
        ASSERT_EQ(got, expected) << m << ", " << n;
      }
    }
  }
}

TEST(Int8Rows, RandomShapes) {
  const ThreadedExecutor threads(3);
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    ASSERT_NO_FATAL_FAILURE(check(seed, SerialExecutor{}));
    ASSERT_NO_FATAL_FAILURE(check(1000 + seed, threads));
  }
}

}  // namespace
}  // namespace tfmbs::decode
