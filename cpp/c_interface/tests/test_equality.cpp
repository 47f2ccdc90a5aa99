// A layer of the C interface against the same layer of the runtime: every bit of the result, every
// counter, who is resident where, and every byte of every bank.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "c_client.h"
#include "same_device.hpp"
#include "tfmbs/c/layer.h"
#include "tfmbs/format/pt5.hpp"
#include "tfmbs/linear/activation.hpp"
#include "tfmbs/runtime/layer.hpp"

namespace tfmbs::runtime {
namespace {

using device::Engine;
using device::Fabric;
using device::FabricSpec;
using execution::SerialExecutor;
using linear::Activation;
using linear::quantize_weights;
using linear::QuantizedWeights;
using linear::WeightQuantizer;

using kernels::FloatType;
using Random = std::mt19937_64;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Row-major values of a float type. Halves are built from bits: a sign, and an exponent too small
// for what they mean to matter.
std::vector<std::byte> draw(Random& random, FloatType type, std::size_t count, bool special) {
  const std::size_t bytes = kernels::float_bytes(type);
  std::vector<std::byte> values(count * bytes);
  std::uniform_int_distribution<int> percent(0, 99);
  std::normal_distribution<double> normal;
  for (std::size_t i = 0; i < count; ++i) {
    const int p = percent(random);
    const bool odd = special && percent(random) == 0;
    std::byte* to = values.data() + i * bytes;
    const double value = p < 30 ? 0.0 : odd && p < 50 ? kNan : odd ? -kInfinity : normal(random);
    if (type == FloatType::kFloat64) {
      std::memcpy(to, &value, bytes);
    } else if (type == FloatType::kFloat32) {
      const auto narrow = static_cast<float>(value);
      std::memcpy(to, &narrow, bytes);
    } else {
      const std::uint32_t exponent = type == FloatType::kFloat16 ? 0x7C00 : 0x7F80;
      std::uint32_t half = 0;
      if (std::isnan(value)) {
        half = exponent | 1;
      } else if (std::isinf(value)) {
        half = 0x8000 | exponent;
      } else if (value != 0.0) {
        half = static_cast<std::uint32_t>(random()) & 0xBFFF;
      }
      const auto word = static_cast<std::uint16_t>(half);
      std::memcpy(to, &word, bytes);
    }
  }
  return values;
}

// One layer twice: with float weights in the runtime, with their trits and scales in C.
struct Pair {
  std::uint64_t outputs;
  std::uint64_t depth;
  std::vector<std::byte> weights;
  FloatType weight_type;
  std::shared_ptr<Layer> layer;
  tfmbs_layer* slot{nullptr};

  Pair() = default;
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;
  ~Pair() { tfmbs_layer_release(&slot); }

  void make(Random& random, const LayerSpec& spec, const std::shared_ptr<Fabric>& expected,
            const FabricSpec& fabric, bool nan_weight) {
    outputs = spec.outputs;
    depth = spec.depth;
    weight_type = random() % 2 == 0 ? FloatType::kFloat32 : FloatType::kFloat64;
    weights = draw(random, weight_type, outputs * depth, false);
    if (nan_weight) {
      std::memset(weights.data() + random() % (outputs * depth) * kernels::float_bytes(weight_type),
                  0xFF, kernels::float_bytes(weight_type));
    }
    layer = Layer::make(spec, expected).value();

    const QuantizedWeights packed =
        quantize_weights(source().floats(), spec.quantizer, SerialExecutor{});
    layer->note_sparsity(packed.sparsity());  // else it would hear of it with its first forward
    std::vector<std::int8_t> trits(outputs * depth);
    ASSERT_TRUE(unpack_bit_planes(packed.planes.view(), trits));
    std::vector<std::uint8_t> stream(pt5_bytes(trits.size()));
    ASSERT_TRUE(pack_pt5(trits, stream));
    std::vector<double> scales = packed.scales.empty() ? std::vector<double>{1.0} : packed.scales;
    if (!packed.nan_outputs.empty()) {
      if (scales.size() == 1) scales.resize(outputs, scales[0]);
      for (std::size_t n = 0; n < outputs; ++n) {
        if (packed.nan_outputs[n] != 0) scales[n] = kNan;
      }
    }
    const std::vector<float> narrow(scales.begin(), scales.end());
    const bool wide = weight_type == FloatType::kFloat64;
    ASSERT_EQ(
        tfmbs_layer_define(&slot, spec.identity.name.c_str(), static_cast<std::int64_t>(outputs),
                           static_cast<std::int64_t>(depth),
                           spec.activation == Activation::kInt8 ? 1 : 0, spec.identity.tile_mask,
                           spec.identity.weight_address
                               ? static_cast<std::int64_t>(*spec.identity.weight_address)
                               : -1,
                           fabric.to_text().c_str(), stream.data(),
                           wide ? static_cast<const void*>(scales.data()) : narrow.data(),
                           static_cast<std::int64_t>(scales.size()), wide ? TFMBS_F64 : TFMBS_F32),
        TFMBS_OK)
        << tfmbs_last_error(nullptr);
  }

  [[nodiscard]] WeightSource source() const {
    return {.data = weights.data(),
            .type = weight_type,
            .outputs = outputs,
            .depth = depth,
            .version = std::int64_t{1}};
  }

  void run(Random& random, std::size_t samples) const {
    const auto type = [&] { return static_cast<FloatType>(random() % 4); };
    const FloatType input_type = type();
    const FloatType bias_type = type();
    const FloatType output_type = type();
    const auto input = draw(random, input_type, samples * depth, random() % 3 == 0);
    const auto bias = draw(random, bias_type, outputs, false);
    const void* given_bias = random() % 3 == 0 ? nullptr : bias.data();
    std::vector<std::byte> expected(samples * outputs * kernels::float_bytes(output_type));
    std::vector<std::byte> output(expected.size());
    const Status status = layer->forward(source(),
                                         {.input = input.data(),
                                          .input_type = input_type,
                                          .samples = samples,
                                          .bias = given_bias,
                                          .bias_type = bias_type,
                                          .output = expected.data(),
                                          .output_type = output_type},
                                         SerialExecutor{});
    const std::int32_t given = tfmbs_layer_forward(
        &slot_of(), input.data(), static_cast<std::int32_t>(input_type),
        static_cast<std::int64_t>(samples), given_bias, static_cast<std::int32_t>(bias_type),
        output.data(), static_cast<std::int32_t>(output_type));
    if (!status) {  // another layer's given address leaves no room
      ASSERT_EQ(given, TFMBS_PLACEMENT);
      ASSERT_EQ(tfmbs_last_error(nullptr), status.error().message);
      return;
    }
    ASSERT_EQ(given, TFMBS_OK) << tfmbs_last_error(nullptr);
    ASSERT_EQ(output, expected);
  }
  [[nodiscard]] tfmbs_layer*& slot_of() const { return const_cast<tfmbs_layer*&>(slot); }
};

TEST(CInterface, EqualsTheRuntimeInEveryRespect) {
  constexpr std::uint64_t kSeed = 20261122;
  Random random(kSeed);
  const std::vector<Geometry> geometries{Geometry{}, Geometry::make(1, 15, 15).value(),
                                         Geometry::make(3, 7, 31).value(),
                                         Geometry::make(2, 40, 64).value()};
  const auto pick = [&](const std::vector<std::uint64_t>& values) {
    return values[random() % values.size()];
  };
  for (std::size_t round = 0; round < 160; ++round) {
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", round " + std::to_string(round));
    const auto engine = round % 2 == 0 ? Engine::kClosedForm : Engine::kStepped;
    const fabric::FabricConfig config{geometries[round / 2 % geometries.size()], {}};
    const auto expected = Fabric::open(engine, config);
    const auto device = Fabric::open(engine, config);
    std::vector<Pair> pairs(2);
    for (Pair& pair : pairs) {
      LayerSpec spec{.identity = {.name = "fc"},
                     .outputs = pick({1, 7, 15, 16, 61, 130}),
                     .depth = pick({1, 4, 15, 31, 100, 513, 1025}),
                     .quantizer = static_cast<WeightQuantizer>(random() % 3),
                     .activation = static_cast<Activation>(random() % 2)};
      if (random() % 4 == 0) spec.identity.tile_mask = config.geometry.all_tiles();
      const auto words = placement::resident_words(
          config.geometry, spec.outputs, spec.depth,
          spec.identity.tile_mask != 0
              ? spec.identity.tile_mask
              : placement::default_tile_mask(config.geometry, spec.outputs));
      if (&pair == &pairs[0] && words <= config.geometry.bank_a_words() && random() % 3 == 0) {
        spec.identity.weight_address =
            config.geometry.bank_a_base(0) +
            4 * (random() % (config.geometry.bank_a_words() - words + 1));
      }
      ASSERT_NO_FATAL_FAILURE(pair.make(random, spec, expected, device->spec(), random() % 4 == 0));
    }
    expect_same_device(*device, *expected);  // before the first forward, sparsity included
    for (const std::size_t i : {0U, 1U, 0U, 1U, 1U}) {
      const std::size_t samples = pick({1, 2, 3, 70});
      ASSERT_NO_FATAL_FAILURE(pairs[i].run(random, samples));
    }
    expect_same_device(*device, *expected);
    for (Pair& pair : pairs) {
      tfmbs_layer_release(&pair.slot);
      EXPECT_EQ(pair.slot, nullptr);
    }
    EXPECT_TRUE(device->profile().value().layers.empty());
    if (HasFailure()) return;
  }
}

// The table of modes stands in the order of the constants.
TEST(CInterface, ActivationsAreTheModesOfTheirNumbers) {
  ASSERT_EQ(linear::activation_modes().size(), 2U);
  EXPECT_EQ(linear::activation_modes()[TFMBS_TERNARY].name, "ternary");
  EXPECT_EQ(linear::activation_modes()[TFMBS_INT8].name, "int8");
}

TEST(CInterface, SamplesAndSizesOfNothing) {
  tfmbs_layer* slot = nullptr;
  const float scale = 2.0F;
  const float bias[3] = {1.0F, 2.0F, 3.0F};
  float output[6] = {};
  ASSERT_EQ(tfmbs_layer_define(&slot, "no depth", 3, 0, 0, 0, -1, "", nullptr, &scale, 1, 0), 0);
  ASSERT_EQ(tfmbs_layer_forward(&slot, nullptr, 0, 2, bias, 0, output, 0), 0);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(output[i], bias[i % 3]);
  EXPECT_EQ(tfmbs_layer_forward(&slot, nullptr, 0, 0, nullptr, 0, nullptr, 0), 0);
  tfmbs_layer_release(&slot);
  ASSERT_EQ(tfmbs_layer_define(&slot, "no outputs", 0, 3, 0, 0, -1, "", nullptr, nullptr, 0, 0), 0)
      << tfmbs_last_error(nullptr);
  EXPECT_EQ(tfmbs_layer_forward(&slot, bias, 0, 1, nullptr, 0, nullptr, 0), 0);
  tfmbs_layer_release(&slot);
}

TEST(CInterface, IsC) { EXPECT_EQ(c_client_run(), 0); }

}  // namespace
}  // namespace tfmbs::runtime
