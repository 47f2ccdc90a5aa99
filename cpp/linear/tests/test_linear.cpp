// linear() against loops over the formulas of kernels.hpp, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "failing_new.hpp"
#include "float_values.hpp"
#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/linear/activation_quantizer.hpp"
#include "tfmbs/linear/linear.hpp"
#include "tfmbs/linear/packing_policy.hpp"
#include "tfmbs/linear/product.hpp"
#include "tfmbs/linear/quantized_weights.hpp"
#include "threaded_executor.hpp"

namespace tfmbs::linear {
namespace {

using execution::SerialExecutor;
using execution::ThreadedExecutor;
using kernels::FloatType;
using Random = std::mt19937_64;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr FloatType kFloatTypes[] = {FloatType::kFloat32, FloatType::kFloat64, FloatType::kBFloat16,
                                     FloatType::kFloat16};

struct Shape {
  std::size_t samples;
  std::size_t outputs;
  std::size_t depth;
};

// A call's operands, and what it is to give.
struct Case {
  Shape shape;
  Activation activation{Activation::kTernary};
  std::vector<std::int8_t> trits{};
  std::vector<double> scales{};  // none, one, or one an output
  std::vector<std::uint8_t> nan_outputs{};
  Floats input;
  Floats bias;
  bool has_bias{false};
  FloatType output_type{FloatType::kFloat32};
  bool relu{false};
};

double normal(Random& random) { return std::normal_distribution<double>()(random); }

Case draw(Shape shape, Activation activation, FloatType input_type, Random& random) {
  Case c{.shape = shape,
         .activation = activation,
         .input = Floats(input_type, shape.samples * shape.depth),
         .bias = Floats(FloatType::kFloat32, shape.outputs)};
  c.trits.resize(shape.outputs * shape.depth);
  for (auto& trit : c.trits) trit = static_cast<std::int8_t>(static_cast<int>(random() % 3) - 1);
  for (std::size_t i = 0; i < shape.samples * shape.depth; ++i) {
    c.input.set(i, random() % 4 == 0 ? 0.0 : normal(random));
  }
  return c;
}

void add_scales(Case& c, std::size_t count, Random& random) {
  c.scales.resize(count);
  // fp32 values, as scales are unless the weights are fp64.
  for (double& scale : c.scales) scale = static_cast<double>(static_cast<float>(normal(random)));
}

void add_bias(Case& c, FloatType type, Random& random) {
  c.bias = Floats(type, c.shape.outputs);
  c.has_bias = true;
  for (std::size_t n = 0; n < c.shape.outputs; ++n) c.bias.set(n, normal(random));
}

// One row of the input, quantized.
struct Row {
  std::vector<int> values;
  double scale{1.0};
  bool nan{false};
};

template <typename Real>
Row quantize(const Case& c, std::size_t sample) {
  Row row{.values = std::vector<int>(c.shape.depth)};
  const auto value = [&](std::size_t k) {
    return static_cast<Real>(c.input.at(sample * c.shape.depth + k));
  };
  const bool ternary = c.activation == Activation::kTernary;
  Real greatest = 0;
  for (std::size_t k = 0; k < c.shape.depth; ++k) {
    row.nan |= ternary ? std::isnan(value(k)) : !std::isfinite(value(k));
    greatest = std::max(greatest, std::fabs(value(k)));
  }
  if (ternary) {
    for (std::size_t k = 0; k < c.shape.depth; ++k) {
      row.values[k] = (value(k) > 0 ? 1 : 0) - (value(k) < 0 ? 1 : 0);
    }
  } else if (!row.nan && c.shape.depth > 0) {
    greatest = std::max(greatest, static_cast<Real>(1e-5));
    const Real factor = 127 / greatest;
    for (std::size_t k = 0; k < c.shape.depth; ++k) {
      row.values[k] =
          static_cast<int>(std::clamp<Real>(std::nearbyint(value(k) * factor), -127, 127));
    }
    row.scale = static_cast<double>(greatest / 127);
  }
  return row;
}

template <typename Real>
Floats reference_in(const Case& c) {
  const auto [samples, outputs, depth] = c.shape;
  Floats out(c.output_type, samples * outputs);
  for (std::size_t m = 0; m < samples; ++m) {
    const Row row = quantize<Real>(c, m);
    for (std::size_t n = 0; n < outputs; ++n) {
      int sum = 0;
      for (std::size_t k = 0; k < depth; ++k) sum += row.values[k] * c.trits[n * depth + k];
      const double scale = c.scales.empty() ? 1.0 : c.scales[c.scales.size() == 1 ? 0 : n];
      const Real factor = static_cast<Real>(row.scale) * static_cast<Real>(scale);
      Real y = static_cast<Real>(sum) * factor;
      if (c.has_bias) y += static_cast<Real>(c.bias.at(n));
      if (c.relu && y < 0) y = 0;
      const bool nan = row.nan || (!c.nan_outputs.empty() && c.nan_outputs[n] != 0);
      out.set(m * outputs + n, nan ? kNan : static_cast<double>(y));
    }
  }
  return out;
}

Floats reference(const Case& c) {
  return c.input.type() == FloatType::kFloat64 ? reference_in<double>(c) : reference_in<float>(c);
}

QuantizedWeights weights_of(const Case& c) {
  auto quantized =
      read_trits({.trits = c.trits.data(),
                  .outputs = c.shape.outputs,
                  .depth = c.shape.depth,
                  .scales = c.scales.data(),
                  .scale_count = c.scales.size(),
                  .nan_outputs = c.nan_outputs.empty() ? nullptr : c.nan_outputs.data()});
  EXPECT_TRUE(quantized.ok());
  return std::move(quantized).value();
}

std::vector<WeightLayout> layouts_of(Activation activation) {
  std::vector<WeightLayout> layouts;
  for (const WeightLayout layout : kWeightLayouts) {
    if (is_int8(layout) == mode_of(activation).by_values) layouts.push_back(layout);
  }
  return layouts;
}

LinearArgs args_of(const Case& c, Floats& out) {
  return {.input = c.input.data(),
          .input_type = c.input.type(),
          .samples = c.shape.samples,
          .bias = c.has_bias ? c.bias.data() : nullptr,
          .bias_type = c.bias.type(),
          .output = out.data(),
          .output_type = c.output_type,
          .relu = c.relu};
}

Floats run(const Case& c, WeightLayout layout, const execution::Executor& executor) {
  const PackedWeights weights(weights_of(c), layout, executor);
  Floats out(c.output_type, std::vector<double>(c.shape.samples * c.shape.outputs, 12345.0));
  linear(weights, c.activation, args_of(c, out), executor);
  return out;
}

// Bits, but a NaN is a NaN.
void expect_equal(const Floats& got, const Floats& wanted) {
  if (got.bytes() == wanted.bytes()) return;
  const std::size_t bytes = kernels::float_bytes(wanted.type());
  for (std::size_t i = 0; i < wanted.bytes().size() / bytes; ++i) {
    const double a = got.at(i);
    const double b = wanted.at(i);
    if (std::isnan(a) && std::isnan(b)) continue;
    ASSERT_EQ(a, b) << "value " << i;
    ASSERT_EQ(std::signbit(a), std::signbit(b)) << "value " << i;
  }
}

void expect_right(const Case& c, const execution::Executor& executor = SerialExecutor()) {
  const Floats wanted = reference(c);
  for (const WeightLayout layout : layouts_of(c.activation)) {
    SCOPED_TRACE(::testing::Message()
                 << c.shape.samples << " x " << c.shape.depth << " -> " << c.shape.outputs << ", "
                 << name_of(layout) << ", input type " << static_cast<int>(c.input.type()));
    expect_equal(run(c, layout, executor), wanted);
  }
}

class LinearTest : public ::testing::TestWithParam<Activation> {
 protected:
  Random random{20};
};

TEST_P(LinearTest, Shapes) {
  for (const std::size_t depth : {1U, 15U, 19U, 20U, 64U, 131U}) {
    for (const std::size_t outputs : {1U, 16U, 63U, 64U, 65U}) {
      Case c = draw({random() % 10 + 1, outputs, depth}, GetParam(), FloatType::kFloat32, random);
      add_scales(c, 1, random);
      expect_right(c);
    }
  }
  expect_right(draw({70, 130, 40}, GetParam(), FloatType::kFloat32, random));  // calls of 64 rows
}

TEST_P(LinearTest, FloatTypes) {
  for (const FloatType input : kFloatTypes) {
    for (const FloatType output : kFloatTypes) {
      Case c = draw({3, 20, 50}, GetParam(), input, random);
      c.output_type = output;
      add_scales(c, 20, random);
      add_bias(c, kFloatTypes[random() % 4], random);
      expect_right(c);
    }
  }
}

TEST_P(LinearTest, ScalesBiasAndRelu) {
  for (const std::size_t scales : {0U, 1U, 70U}) {
    for (const bool bias : {false, true}) {
      for (const bool relu : {false, true}) {
        Case c = draw({4, 70, 33}, GetParam(), FloatType::kFloat32, random);
        add_scales(c, scales, random);
        if (bias) add_bias(c, FloatType::kFloat32, random);
        c.relu = relu;
        expect_right(c);
      }
    }
  }
}

// Scales of fp64 weights are used in full where the input is fp64.
TEST_P(LinearTest, WideScales) {
  Case c = draw({2, 5, 33}, GetParam(), FloatType::kFloat64, random);
  c.output_type = FloatType::kFloat64;
  c.scales = {1.0 / 3};
  expect_right(c);
}

TEST_P(LinearTest, NanAndInfinityInTheInput) {
  for (const FloatType type : kFloatTypes) {
    Case c = draw({5, 66, 40}, GetParam(), type, random);
    add_scales(c, 1, random);
    c.relu = true;
    c.input.set(1 * 40 + 39, kNan);
    c.input.set(2 * 40 + 7, kInfinity);
    c.input.set(3 * 40, -kInfinity);
    const Floats wanted = reference(c);
    EXPECT_FALSE(std::isnan(wanted.at(0)));
    EXPECT_TRUE(std::isnan(wanted.at(1 * 66 + 65)));
    EXPECT_EQ(std::isnan(wanted.at(2 * 66)), GetParam() == Activation::kInt8);
    expect_right(c);
  }
}

TEST_P(LinearTest, OutputsThatAreNan) {
  Case c = draw({3, 66, 40}, GetParam(), FloatType::kFloat32, random);
  c.nan_outputs.resize(66);
  c.nan_outputs[0] = c.nan_outputs[65] = 1;
  expect_right(c);
}

TEST_P(LinearTest, RowsOfZeros) {
  Case c = draw({2, 20, 40}, GetParam(), FloatType::kFloat32, random);
  for (std::size_t k = 0; k < 40; ++k) c.input.set(k, 0.0);
  add_bias(c, FloatType::kFloat32, random);
  expect_right(c);
}

TEST_P(LinearTest, EmptyShapesWriteNothing) {
  for (const Shape shape : {Shape{0, 3, 4}, Shape{3, 0, 4}, Shape{0, 0, 4}}) {
    const Case c = draw(shape, GetParam(), FloatType::kFloat32, random);
    const PackedWeights weights(weights_of(c), layouts_of(GetParam()).front(), SerialExecutor());
    LinearArgs args;  // of null pointers: nothing may be read or written
    args.samples = shape.samples;
    linear(weights, GetParam(), args, SerialExecutor());
  }
}

TEST_P(LinearTest, WithoutInputsTheOutputIsTheBias) {
  Case c = draw({3, 66, 0}, GetParam(), FloatType::kFloat32, random);
  expect_right(c);
  add_scales(c, 66, random);
  for (double& scale : c.scales) scale = std::fabs(scale);  // a sum of none is +0
  expect_right(c);
  add_bias(c, FloatType::kBFloat16, random);
  c.output_type = FloatType::kFloat16;
  c.relu = true;
  expect_right(c);
  c.nan_outputs.resize(66);
  c.nan_outputs[7] = 1;
  expect_right(c);
}

// Enough of everything for each way in which threads share a product: blocks, panels, rows.
TEST_P(LinearTest, Threads) {
  for (const Shape shape : {Shape{256, 1024, 70}, Shape{1, 1500, 40}, Shape{100, 65, 33}}) {
    Case c = draw(shape, GetParam(), FloatType::kFloat32, random);
    add_scales(c, shape.outputs, random);
    add_bias(c, FloatType::kFloat32, random);
    const WeightLayout layout = layouts_of(GetParam()).front();
    const Floats wanted = reference(c);
    expect_equal(run(c, layout, SerialExecutor()), wanted);
    for (const std::size_t threads : {1U, 2U, 3U}) {
      expect_equal(run(c, layout, ThreadedExecutor(threads)), wanted);
    }
  }
}

TEST_P(LinearTest, OutOfMemoryIsThrown) {
  const Case c = draw({4, 70, 33}, GetParam(), FloatType::kFloat32, random);
  const PackedWeights weights(weights_of(c), layouts_of(GetParam()).front(), SerialExecutor());
  Floats out(c.output_type, c.shape.samples * c.shape.outputs);
  const LinearArgs args = args_of(c, out);
  bool thrown = false;
  std::jthread([&] {  // whose workspace is empty
    testing::FailingNew failing(0);
    try {
      linear(weights, GetParam(), args, SerialExecutor());
    } catch (const std::bad_alloc&) {
      thrown = true;
    }
  })
      .join();
  EXPECT_TRUE(thrown);
}

class FailingExecutor final : public execution::Executor {
 public:
  [[nodiscard]] std::size_t threads() const noexcept override { return 2; }
  void parallel_for(std::size_t, std::size_t, execution::RangeFunction) const override {
    throw std::runtime_error("no threads");
  }
};

TEST_P(LinearTest, AnExecutorsExceptionIsTheCallers) {
  const Case c = draw({4, 70, 33}, GetParam(), FloatType::kFloat32, random);
  const PackedWeights weights(weights_of(c), layouts_of(GetParam()).front(), SerialExecutor());
  Floats out(c.output_type, c.shape.samples * c.shape.outputs);
  EXPECT_THROW(linear(weights, GetParam(), args_of(c, out), FailingExecutor()), std::runtime_error);
}

// A visitor sees every row once, in blocks that are not larger than it is told.
// The sums of parts of the depth, added and scaled, are the output.
TEST_P(LinearTest, PartsOfTheDepthAddUp) {
  for (const Shape shape : {Shape{3, 20, 50}, Shape{70, 130, 40}, Shape{1, 65, 131}}) {
    for (const FloatType type : {FloatType::kFloat32, FloatType::kFloat64}) {
      Case c = draw(shape, GetParam(), type, random);
      add_scales(c, shape.outputs, random);
      add_bias(c, FloatType::kFloat32, random);
      c.input.set(0, kNan);
      std::vector<double> magnitudes(shape.samples);
      for (std::size_t m = 0; m < shape.samples; ++m) {
        for (std::size_t k = 0; k < shape.depth; ++k) {
          const double magnitude = std::fabs(c.input.at(m * shape.depth + k));
          if (!(magnitude <= magnitudes[m])) magnitudes[m] = magnitude;
          if (std::isnan(magnitude)) break;
        }
      }
      for (const WeightLayout layout : layouts_of(c.activation)) {
        std::vector<std::int32_t> total(shape.samples * shape.outputs);
        std::vector<double> row_scales(shape.samples);
        const std::size_t cut = shape.depth / 3;
        for (const auto& [begin, end] : {std::pair{std::size_t{0}, cut}, {cut, shape.depth}}) {
          Case part = c;
          part.shape.depth = end - begin;
          part.trits.clear();
          for (std::size_t n = 0; n < shape.outputs; ++n) {
            const auto row = c.trits.begin() + static_cast<std::ptrdiff_t>(n * shape.depth);
            part.trits.insert(part.trits.end(), row + static_cast<std::ptrdiff_t>(begin),
                              row + static_cast<std::ptrdiff_t>(end));
          }
          part.input = Floats(type, shape.samples * part.shape.depth);
          for (std::size_t m = 0; m < shape.samples; ++m) {
            for (std::size_t k = begin; k < end; ++k) {
              part.input.set(m * part.shape.depth + k - begin, c.input.at(m * shape.depth + k));
            }
          }
          std::vector<std::int32_t> sums(total.size(), 12345);
          Floats none(type, 0);
          LinearArgs args = args_of(part, none);
          args.magnitudes = magnitudes.data();
          args.sums = sums.data();
          linear(PackedWeights(weights_of(part), layout, SerialExecutor()), c.activation, args,
                 ThreadedExecutor(2));
          for (std::size_t i = 0; i < total.size(); ++i) total[i] += sums[i];
        }
        std::vector<std::uint8_t> nan_rows(shape.samples);
        const auto scale_rows = [&]<typename Real>(Real) {
          for (std::size_t m = 0; m < shape.samples; ++m) {
            const Row row = quantize<Real>(c, m);
            row_scales[m] = row.scale;
            nan_rows[m] = row.nan ? 1 : 0;
          }
        };
        type == FloatType::kFloat64 ? scale_rows(double{}) : scale_rows(float{});
        Floats out(c.output_type, shape.samples * shape.outputs);
        apply_scales(total, {.outputs = shape.outputs, .scales = c.scales},
                     {row_scales.data(), nan_rows.data()}, args_of(c, out));
        expect_equal(out, reference(c));
      }
    }
  }
}

TEST_P(LinearTest, AVisitorSeesEveryRow) {
  class Rows final : public BlockVisitor {
   public:
    void visit(std::size_t begin, std::size_t end, std::size_t block_rows,
               const QuantizeRows& quantize) override {
      ASSERT_GE(block_rows, 1U);
      for (std::size_t row = begin; row < end; row += block_rows) {
        const std::size_t rows = std::min(block_rows, end - row);
        const ActivationRows block = quantize(row, rows);
        const std::scoped_lock lock(mutex_);
        for (std::size_t r = row; r < row + rows; ++r) seen.push_back(r);
        by_values |= block.values != nullptr;
      }
    }
    std::vector<std::size_t> seen;
    bool by_values{false};

   private:
    std::mutex mutex_;
  };
  const Case c = draw({50, 1, 3000}, GetParam(), FloatType::kFloat32, random);
  Floats out(c.output_type, c.shape.samples);
  const LinearArgs args = args_of(c, out);
  execution::Scratch scratch;
  ActivationQuantizer quantizer(args, c.shape.depth, GetParam(), scratch);
  Rows rows;
  quantizer.quantize(ThreadedExecutor(3), &rows);
  std::sort(rows.seen.begin(), rows.seen.end());
  ASSERT_EQ(rows.seen.size(), 50U);
  for (std::size_t row = 0; row < 50; ++row) EXPECT_EQ(rows.seen[row], row);
  EXPECT_EQ(rows.by_values, mode_of(GetParam()).by_values);
  for (std::size_t m = 0; m < 50; ++m) {
    const Row wanted = quantize<float>(c, m);
    for (std::size_t k = 0; k < c.shape.depth; ++k) {
      const int got = rows.by_values
                          ? reinterpret_cast<const std::int8_t*>(quantizer.row(m))[k]
                          : BitPlaneView{reinterpret_cast<const std::uint64_t*>(quantizer.row(m)),
                                         1, c.shape.depth}
                                .trit(0, k);
      ASSERT_EQ(got, wanted.values[k]) << m << ", " << k;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, LinearTest,
                         ::testing::Values(Activation::kTernary, Activation::kInt8),
                         [](const auto& test) { return std::string(name_of(test.param)); });

TEST(PackedWeightsTest, HoldTheTritsInEveryLayout) {
  Random random(21);
  Case c = draw({1, 70, 43}, Activation::kTernary, FloatType::kFloat32, random);
  add_scales(c, 70, random);
  std::size_t zeros = 0;
  for (const std::int8_t trit : c.trits) zeros += trit == 0 ? 1 : 0;
  const PackedWeights first(weights_of(c), kWeightLayouts[0], SerialExecutor());
  Case changed = c;
  changed.trits[69 * 43 + 42] = c.trits[69 * 43 + 42] == 0 ? std::int8_t{1} : std::int8_t{0};
  const PackedWeights other(weights_of(changed), kWeightLayouts[0], SerialExecutor());
  for (const WeightLayout layout : kWeightLayouts) {
    const PackedWeights packed(first, layout, ThreadedExecutor(2));
    EXPECT_EQ(packed.layout(), layout);
    EXPECT_EQ(packed.scales(), c.scales);
    EXPECT_EQ(packed.sparsity(), static_cast<double>(zeros) / (70 * 43));
    EXPECT_TRUE(packed.has_trits_of(first));
    EXPECT_FALSE(packed.has_trits_of(other));
    const BitPlaneMatrix rows = packed.rows();
    for (std::size_t n = 0; n < 70; ++n) {
      for (std::size_t k = 0; k < 43; ++k) {
        ASSERT_EQ(rows.view().trit(n, k), c.trits[n * 43 + k]) << name_of(layout);
      }
    }
  }
}

}  // namespace
}  // namespace tfmbs::linear
