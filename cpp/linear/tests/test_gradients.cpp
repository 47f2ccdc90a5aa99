// Gradients against loops over their formulas. Values are small multiples of 1/4, so that each sum
// is exact in fp32 and rounding is none: results agree bit for bit.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "float_values.hpp"
#include "tfmbs/format/weight_panels.hpp"
#include "tfmbs/linear/gradients.hpp"
#include "tfmbs/linear/quantized_weights.hpp"
#include "threaded_executor.hpp"

namespace tfmbs::linear {
namespace {

using execution::SerialExecutor;
using execution::ThreadedExecutor;
using kernels::FloatType;
using Random = std::mt19937_64;

class Loops final : public MatrixProduct {
 public:
  void multiply(const FloatInput& a, const FloatInput& b, const FloatOutput& c,
                bool add) const override {
    ASSERT_EQ(a.wide, c.wide);
    ASSERT_EQ(b.wide, c.wide);
    ASSERT_EQ(a.columns, b.rows);
    ASSERT_TRUE(a.rows == c.rows && b.columns == c.columns);
    if (c.wide) {
      run<double>(a, b, c, add);
    } else {
      run<float>(a, b, c, add);
    }
  }

 private:
  template <typename Float>
  static void run(const FloatInput& a, const FloatInput& b, const FloatOutput& c, bool add) {
    const auto at = [](const FloatInput& m, std::size_t i, std::size_t j) {
      return static_cast<const Float*>(m.data)[i * m.row_stride + j * m.column_stride];
    };
    for (std::size_t i = 0; i < c.rows; ++i) {
      for (std::size_t j = 0; j < c.columns; ++j) {
        Float& out = static_cast<Float*>(c.data)[i * c.row_stride + j * c.column_stride];
        Float sum = add ? out : Float{0};
        for (std::size_t k = 0; k < a.columns; ++k) sum += at(a, i, k) * at(b, k, j);
        out = sum;
      }
    }
  }
};

struct Case {
  std::size_t samples;
  std::size_t outputs;
  std::size_t depth;
  FloatType type;
  Activation activation;
  bool window;
};

std::vector<std::byte> stored(const std::vector<double>& values, FloatType type) {
  std::vector<std::byte> bytes(values.size() * kernels::float_bytes(type));
  for (std::size_t i = 0; i < values.size(); ++i) {
    store(bytes.data() + i * kernels::float_bytes(type), type, values[i]);
  }
  return bytes;
}

// Multiples of 1/4 up to 2, and zeros. In int8 a row's largest, 127/64, makes its scale 1/64.
std::vector<double> draw(std::size_t count, Random& random) {
  std::vector<double> values(count);
  for (double& value : values) value = (static_cast<double>(random() % 17) - 8) / 4;
  return values;
}

double inside(double value, double clip) { return std::fabs(value) > clip ? 0 : 1; }
double sign(double value) { return (value > 0 ? 1 : 0) - (value < 0 ? 1 : 0); }

void check(const Case& c, const execution::Executor& executor, Random& random) {
  const FloatType precision =
      c.type == FloatType::kFloat64 ? FloatType::kFloat64 : FloatType::kFloat32;
  std::vector<double> input = draw(c.samples * c.depth, random);
  const bool int8 = c.activation == Activation::kInt8;
  for (std::size_t m = 0; m < c.samples && int8; ++m) {
    for (std::size_t k = 0; k < c.depth; ++k) {
      double& x = input[m * c.depth + k];
      x = k == 0 ? 127.0 / 64 : std::min(x, 127.0 / 64);
      if (x == -2) x = -127.0 / 64;
    }
  }
  const std::vector<double> weight = draw(c.outputs * c.depth, random);
  std::vector<double> grad = draw(c.samples * c.outputs, random);
  for (double& g : grad) g = sign(g);
  const double clip = 1.0;

  const KeptLayout layout(c.activation, true, c.window, c.depth);
  std::vector<std::uint8_t> bytes(c.samples * layout.row_bytes());
  const auto given = stored(input, c.type);
  keep_rows(layout, {.input = given.data(), .type = c.type, .rows = c.samples, .clip = clip},
            bytes.data());
  const KeptRows kept{&layout, bytes.data(), c.samples};

  const auto weights = stored(weight, c.type);
  const FloatWeights source{weights.data(), c.type, c.outputs, c.depth};
  const QuantizedWeights quantized =
      quantize_weights(source, WeightQuantizer::kSign, SerialExecutor{});
  const auto upstream = stored(grad, precision);
  const FloatInput g{upstream.data(), precision == FloatType::kFloat64, c.samples, c.outputs,
                     c.outputs};

  std::vector<double> wanted(c.samples * c.depth);
  for (std::size_t m = 0; m < c.samples; ++m) {
    for (std::size_t k = 0; k < c.depth; ++k) {
      double sum = 0;
      for (std::size_t n = 0; n < c.outputs; ++n) {
        sum += grad[m * c.outputs + n] * sign(weight[n * c.depth + k]);
      }
      const double x = input[m * c.depth + k];
      wanted[m * c.depth + k] = 0.5 * sum * (c.window ? inside(x, clip) : 1);
    }
  }
  const double half = 0.5;
  std::vector<std::int8_t> trits(c.outputs * c.depth);
  ASSERT_TRUE(unpack_bit_planes(quantized.planes.view(), trits).ok());
  TernaryWeights forms{.trits = quantized.planes.view(),
                       .outputs = c.outputs,
                       .depth = c.depth,
                       .scales = {&half, 1}};
  const auto check_input = [&] {
    std::vector<std::byte> out(wanted.size() * kernels::float_bytes(c.type), std::byte{0xAB});
    input_gradient(g, forms, &kept, out.data(), c.type, Loops{}, executor);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const double found = load(out.data() + i * kernels::float_bytes(c.type), c.type);
      double rounded[1];
      std::byte one[8];
      store(one, c.type, wanted[i]);
      rounded[0] = load(one, c.type);
      ASSERT_EQ(found, rounded[0]) << i;
    }
  };
  check_input();
  forms.trits = TritMatrix{trits.data()};
  check_input();
  for (const WeightLayout layout_of_panels : kWeightLayouts) {
    WeightPanels panels(layout_of_panels, c.outputs, c.depth);
    ASSERT_TRUE(panels.set_rows(0, quantized.planes.view()).ok());
    forms.trits = panels.view();
    check_input();
  }

  std::vector<std::byte> out(weight.size() * kernels::float_bytes(c.type), std::byte{0xAB});
  weight_gradient(g, kept, source, out.data(), Loops{}, executor);
  for (std::size_t n = 0; n < c.outputs; ++n) {
    for (std::size_t k = 0; k < c.depth; ++k) {
      double sum = 0;
      for (std::size_t m = 0; m < c.samples; ++m) {
        const double x = input[m * c.depth + k];
        sum += grad[m * c.outputs + n] * (int8 ? x : sign(x));
      }
      const std::size_t i = n * c.depth + k;
      std::byte one[8];
      store(one, c.type, sum * inside(weight[i], kWeightWindow));
      ASSERT_EQ(load(out.data() + i * kernels::float_bytes(c.type), c.type), load(one, c.type))
          << n << " " << k;
    }
  }
}

TEST(Gradients, EqualLoops) {
  Random random(1);
  const ThreadedExecutor threads(3);
  const SerialExecutor serial;
  for (const FloatType type :
       {FloatType::kFloat32, FloatType::kFloat64, FloatType::kBFloat16, FloatType::kFloat16}) {
    for (const Activation activation : {Activation::kTernary, Activation::kInt8}) {
      for (const bool window : {false, true}) {
        for (int i = 0; i < 3; ++i) {
          const std::size_t depth = 1 + random() % 150;
          const Case c{1 + random() % 9, 1 + random() % 140, depth, type, activation, window};
          SCOPED_TRACE(testing::Message() << c.samples << "x" << c.outputs << "x" << c.depth
                                          << " type " << static_cast<int>(type) << " mode "
                                          << static_cast<int>(activation) << " window " << window);
          if (i % 2 == 0) {
            check(c, serial, random);
          } else {
            check(c, threads, random);
          }
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(Gradients, NothingGivesZeros) {
  const KeptLayout layout(Activation::kTernary, true, true, 5);
  const KeptRows kept{&layout, nullptr, 0};
  std::vector<float> weight(15, 0.5F);
  std::vector<float> out(15, 7.0F);
  const FloatInput grad{nullptr, false, 0, 3, 3};
  weight_gradient(grad, kept, {weight.data(), FloatType::kFloat32, 3, 5}, out.data(), Loops{},
                  SerialExecutor{});
  EXPECT_EQ(out, std::vector<float>(15, 0.0F));
}

TEST(Gradients, ANanCountsAsInside) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> input{kNan, 2.0F, -0.5F, 0.0F, -3.0F};
  for (const Activation activation : {Activation::kTernary, Activation::kInt8}) {
    for (const bool values : {false, true}) {
      const KeptLayout layout(activation, values, true, 5);
      std::vector<std::uint8_t> bytes(layout.row_bytes());
      keep_rows(layout,
                {.input = input.data(), .type = FloatType::kFloat32, .rows = 1, .clip = 1.0},
                bytes.data());
      std::vector<float> gradient(5, 1.0F);
      apply_window({&layout, bytes.data(), 1}, 0, gradient.data());
      EXPECT_EQ(gradient, (std::vector<float>{1, 0, 1, 1, 0}));
    }
  }
}

}  // namespace
}  // namespace tfmbs::linear
