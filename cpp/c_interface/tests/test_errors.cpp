// Every error: its status and text, an output of NaN, and a slot that can be defined again.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "c_layer.hpp"
#include "failing_new.hpp"
#include "tfmbs/device/fabric.hpp"

namespace tfmbs {
namespace {

using testing::CLayer;

struct Definition {
  const char* name{"fc"};
  std::int64_t outputs{2};
  std::int64_t depth{5};
  std::int32_t activation{0};
  std::uint64_t tile_mask{0};
  std::int64_t weight_address{-1};
  const char* fabric{""};
  std::vector<std::uint8_t> weights{1, 242};
  const std::uint8_t* given_weights{weights.data()};
  float scales[2] = {1.0F, 1.0F};
  const void* given_scales{scales};
  std::int64_t scale_count{1};
  std::int32_t scale_type{0};

  std::int32_t define(tfmbs_layer** slot) const {
    return tfmbs_layer_define(slot, name, outputs, depth, activation, tile_mask, weight_address,
                              fabric, given_weights, given_scales, scale_count, scale_type);
  }
};

class CErrors : public ::testing::Test {
 protected:
  void SetUp() override { tfmbs_clear_error(); }
  void TearDown() override { tfmbs_layer_release(&slot); }

  static void expect_error(std::int32_t status, std::int32_t expected, const std::string& text) {
    EXPECT_EQ(status, expected);
    std::int32_t code = -1;
    const std::string given = tfmbs_last_error(&code);
    EXPECT_EQ(code, expected);
    EXPECT_NE(given.find(text), std::string::npos) << "'" << given << "' lacks '" << text << "'";
  }

  // The definition fails, then so does a forward, with NaN; then the slot serves a good one.
  void expect_undefinable(const std::function<void(Definition&)>& change, std::int32_t status,
                          const std::string& text) {
    SCOPED_TRACE(text);
    Definition definition;
    change(definition);
    expect_error(definition.define(&slot), status, text);
    std::vector<float> output(
        std::size_t{3} * static_cast<std::size_t>(std::max<std::int64_t>(
                             0, std::min<std::int64_t>(definition.outputs, 4))),
        7.0F);
    if (definition.outputs <= 4) {
      tfmbs_clear_error();
      expect_error(tfmbs_layer_forward(&slot, input.data(), 0, 3, nullptr, 0, output.data(), 0),
                   status, text);
      for (const float value : output) EXPECT_TRUE(std::isnan(value));
    }
    ASSERT_EQ(Definition{}.define(&slot), TFMBS_OK) << tfmbs_last_error(nullptr);
    output.assign(6, 7.0F);
    EXPECT_EQ(tfmbs_layer_forward(&slot, input.data(), 0, 3, nullptr, 0, output.data(), 0), 0);
    EXPECT_EQ(output[0], 1.0F);
    tfmbs_layer_release(&slot);
  }

  tfmbs_layer* slot{nullptr};
  std::vector<float> input = std::vector<float>(15, 1.0F);
};

TEST_F(CErrors, OfADefinition) {
  constexpr auto kMost = std::numeric_limits<std::int64_t>::max();
  constexpr std::int32_t kInvalid = TFMBS_INVALID_ARGUMENT;
  expect_error(Definition{}.define(nullptr), kInvalid, "slot is a null pointer");
  const auto refuse = [this](const std::function<void(Definition&)>& change, std::int32_t status,
                             const std::string& text) { expect_undefinable(change, status, text); };
  refuse([](auto& d) { d.name = nullptr; }, kInvalid, "name is a null pointer");
  refuse([](auto& d) { d.name = ""; }, kInvalid, "name is empty");
  refuse([](auto& d) { d.outputs = -1; }, kInvalid, "outputs is -1");
  refuse([](auto& d) { d.outputs = kMost; }, kInvalid, "allowed are at most 4294967296 x 16777216");
  refuse([](auto& d) { d.depth = -7; }, kInvalid, "depth is -7");
  refuse([](auto& d) { d.depth = kMost; }, kInvalid, "allowed are at most 4294967296 x 16777216");
  refuse([](auto& d) { d.activation = 2; }, kInvalid, "activation is 2; allowed are 0 (ternary)");
  refuse([](auto& d) { d.tile_mask = 16; }, kInvalid, "tile_mask 16");
  refuse([](auto& d) { d.weight_address = -2; }, kInvalid, "weight_address is -2");
  refuse([](auto& d) { d.weight_address = 0x1002; }, TFMBS_PLACEMENT, "0x1002");
  refuse([](auto& d) { d.fabric = nullptr; }, kInvalid, "fabric is a null pointer");
  refuse([](auto& d) { d.fabric = "nonsense"; }, kInvalid, "nonsense");
  refuse(
      [](auto& d) {
        d.fabric =
            "fabric=f;engine=closed_form;tiles=65;lanes=1;bank_depth=15;mac_pj=1;sram_pj=1;dram_pj="
            "1";
      },
      TFMBS_GEOMETRY, "65");
  refuse([](auto& d) { d.given_weights = nullptr; }, kInvalid, "weights is a null pointer");
  refuse([](auto& d) { d.weights[1] = 243; }, TFMBS_ENCODING, "byte 0xf3 at offset 1");
  refuse([](auto& d) { d.given_scales = nullptr; }, kInvalid, "scales is a null pointer");
  refuse([](auto& d) { d.scale_count = 0; }, kInvalid, "scale_count is 0; allowed are 1 and 2");
  refuse([](auto& d) { d.scale_count = 3; }, kInvalid, "scale_count is 3");
  refuse([](auto& d) { d.scale_count = -1; }, kInvalid, "scale_count is -1");
  refuse([](auto& d) { d.scale_type = 2; }, kInvalid, "scale_type is 2");
  // More memory than there is address space for.
  refuse(
      [](auto& d) {
        d.outputs = std::int64_t{1} << 32;
        d.depth = std::int64_t{1} << 24;
      },
      TFMBS_OUT_OF_MEMORY, "out of memory");
}

// A fault is found wherever it lies, and named by its offset in the whole stream.
TEST_F(CErrors, OfEncodingAnywhereInALargeStream) {
  constexpr std::int64_t kOutputs = 301;
  constexpr std::int64_t kDepth = 997;
  std::vector<std::uint8_t> weights((kOutputs * kDepth + 4) / 5, 121);
  for (const std::size_t at : {std::size_t{0}, std::size_t{777}, weights.size() / 2,
                               weights.size() - 2, weights.size() - 1}) {
    weights[at] = 255;
    const float scale = 1.0F;
    expect_error(tfmbs_layer_define(&slot, "fc", kOutputs, kDepth, 0, 0, -1, "", weights.data(),
                                    &scale, 1, 0),
                 TFMBS_ENCODING, "byte 0xff at offset " + std::to_string(at));
    weights[at] = 121;
  }
}

TEST_F(CErrors, OfAForward) {
  constexpr std::int32_t kInvalid = TFMBS_INVALID_ARGUMENT;
  std::vector<float> output(6, 7.0F);
  float* out = output.data();
  expect_error(tfmbs_layer_forward(nullptr, input.data(), 0, 3, nullptr, 0, out, 0), kInvalid,
               "slot is a null pointer");
  expect_error(tfmbs_layer_forward(&slot, input.data(), 0, 3, nullptr, 0, out, 0), kInvalid,
               "holds no layer");
  ASSERT_EQ(Definition{}.define(&slot), TFMBS_OK);
  const auto refuse = [&](std::int32_t status, const std::string& text, bool filled) {
    SCOPED_TRACE(text);
    expect_error(status, kInvalid, text);
    for (const float value : output) EXPECT_EQ(std::isnan(value), filled);
    output.assign(6, 7.0F);
  };
  const float* in = input.data();
  refuse(tfmbs_layer_forward(&slot, nullptr, 0, 3, nullptr, 0, out, 0), "input is a null", true);
  refuse(tfmbs_layer_forward(&slot, in, 4, 3, nullptr, 0, out, 0), "input_type is 4", true);
  refuse(tfmbs_layer_forward(&slot, in, -1, 3, nullptr, 0, out, 0), "input_type is -1", true);
  refuse(tfmbs_layer_forward(&slot, in, 0, 3, in, 9, out, 0), "bias_type is 9", true);
  refuse(tfmbs_layer_forward(&slot, in, 0, 3, nullptr, 0, out, 4), "output_type is 4", false);
  refuse(tfmbs_layer_forward(&slot, in, 0, 3, nullptr, 0, out, -1), "output_type is -1", false);
  refuse(tfmbs_layer_forward(&slot, in, 0, 3, nullptr, 0, nullptr, 0), "output is a null", false);
  refuse(tfmbs_layer_forward(&slot, in, 0, -3, nullptr, 0, out, 0), "samples is -3", false);
  refuse(tfmbs_layer_forward(&slot, in, 0, std::numeric_limits<std::int64_t>::max(), nullptr, 0,
                             out, 0),
         "fits in no memory", false);
  // A bias that is not there has no type.
  EXPECT_EQ(tfmbs_layer_forward(&slot, in, 0, 3, nullptr, 9, out, 0), TFMBS_OK);
}

TEST_F(CErrors, FillEachTypeWithItsNan) {
  const auto fabric = device::Fabric::open(device::Engine::kClosedForm, {});
  const std::string text = fabric->spec().to_text();
  Definition definition;
  definition.fabric = text.c_str();
  ASSERT_EQ(definition.define(&slot), TFMBS_OK);
  ASSERT_TRUE(fabric->close());
  const std::uint64_t expected[4] = {0x7FC00000, 0x7FF8000000000000, 0x7FC0, 0x7E00};
  const std::size_t bytes[4] = {4, 8, 2, 2};
  for (std::int32_t type = 0; type < 4; ++type) {
    const std::size_t size = bytes[type];
    std::vector<unsigned char> output(7 * size, 0xAA);
    expect_error(tfmbs_layer_forward(&slot, input.data(), 0, 3, nullptr, 0, output.data(), type),
                 TFMBS_CLOSED, "is closed");
    for (std::size_t i = 0; i < 6; ++i) {
      std::uint64_t bits = 0;
      std::memcpy(&bits, output.data() + i * size, size);
      EXPECT_EQ(bits, expected[type]) << type;
    }
    for (std::size_t b = 6 * size; b < 7 * size; ++b) EXPECT_EQ(output[b], 0xAA);  // and no more
  }
}

TEST_F(CErrors, AreOfTheThreadThatMadeThem) {
  expect_error(Definition{}.define(nullptr), TFMBS_INVALID_ARGUMENT, "slot");
  std::thread([] {
    std::int32_t code = -1;
    EXPECT_STREQ(tfmbs_last_error(&code), "");
    EXPECT_EQ(code, TFMBS_OK);
  }).join();
  ASSERT_EQ(Definition{}.define(&slot), TFMBS_OK);  // and stay until they are cleared
  EXPECT_STRNE(tfmbs_last_error(nullptr), "");
  tfmbs_clear_error();
  EXPECT_STREQ(tfmbs_last_error(nullptr), "");
}

// Every allocation of a definition and a forward fails once: a status and NaN, never an end.
TEST_F(CErrors, OutOfMemory) {
  bool failed = true;
  for (std::size_t after = 0; failed; ++after) {
    SCOPED_TRACE("allocation " + std::to_string(after));
    const auto fabric = device::Fabric::open(device::Engine::kClosedForm, {});
    CLayer layer;
    layer.name = "a name that is longer than a short string holds";
    layer.outputs = 2;
    layer.depth = 5;
    layer.weights = {1, 242};
    layer.fabric = fabric->spec().to_text();
    std::vector<float> output(6, 7.0F);
    std::int32_t defined = -1;
    std::int32_t ran = -1;
    std::thread([&] {  // of its own, so that what a thread keeps is allocated anew
      testing::FailingNew failing(after);
      defined = layer.define();
      ran = layer.forward(input, output);
      failed = failing.stop();
    })
        .join();
    if (failed) {
      EXPECT_TRUE(defined == TFMBS_OUT_OF_MEMORY || ran == TFMBS_OUT_OF_MEMORY);
      if (layer.slot != nullptr) {
        EXPECT_TRUE(std::isnan(output[0]) && std::isnan(output[5]));
      } else {
        EXPECT_EQ(after, 0U);  // no memory to note even that the definition failed
      }
    }
    ASSERT_EQ(layer.define(), TFMBS_OK) << tfmbs_last_error(nullptr);
    ASSERT_EQ(layer.forward(input, output), TFMBS_OK) << tfmbs_last_error(nullptr);
    EXPECT_EQ(output, (std::vector<float>{1, -5, 1, -5, 1, -5}));
    EXPECT_EQ(fabric->profile().value().layers.size(), 1U);
    ASSERT_LT(after, 1000U);
  }
}

}  // namespace
}  // namespace tfmbs
