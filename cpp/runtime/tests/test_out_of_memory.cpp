// A forward for which there is no memory leaves a device that works on as if it had not been.
#include <gtest/gtest.h>

#include <memory>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "failing_new.hpp"
#include "same_device.hpp"
#include "tfmbs/runtime/layer.hpp"

namespace tfmbs::runtime {
namespace {

using device::Engine;
using device::expect_same_bytes;
using device::Fabric;
using device::LayerProfile;
using execution::SerialExecutor;
using linear::Activation;

constexpr std::uint64_t kOutputs = 40;
constexpr std::uint64_t kDepth = 100;
constexpr std::size_t kSamples = 3;

struct Workload {
  std::vector<float> weights;
  std::vector<float> input;
  std::vector<float> output = std::vector<float>(kSamples * kOutputs);

  explicit Workload(unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_int_distribution<int> trit(-1, 1);
    for (std::size_t i = 0; i < kOutputs * kDepth; ++i)
      weights.push_back(static_cast<float>(trit(random)));
    for (std::size_t i = 0; i < kSamples * kDepth; ++i)
      input.push_back(static_cast<float>(trit(random)));
  }
  Status forward(Layer& layer) {
    return layer.forward(WeightSource{.data = weights.data(),
                                      .outputs = kOutputs,
                                      .depth = kDepth,
                                      .version = std::int64_t{0}},
                         {.input = input.data(), .samples = kSamples, .output = output.data()},
                         SerialExecutor{});
  }
};

std::shared_ptr<Layer> make(const std::shared_ptr<Fabric>& fabric, std::string name,
                            Activation activation = Activation::kTernary) {
  return Layer::make({.identity = {.name = std::move(name)},
                      .outputs = kOutputs,
                      .depth = kDepth,
                      .activation = activation},
                     fabric)
      .value();
}

bool throws_bad_alloc(const auto& work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    return true;
  }
  return false;
}

class OutOfMemory : public ::testing::TestWithParam<Activation> {};

// Every allocation of a forward fails once, in each engine, resident and streamed, first and later.
TEST_P(OutOfMemory, AForwardThatFindsNoneChangesNothingThatLasts) {
  for (const Engine engine : {Engine::kClosedForm, Engine::kStepped}) {
    for (const std::uint64_t bank_depth : {1024U, 64U}) {
      const fabric::FabricConfig config{Geometry::make(2, 15, bank_depth).value(), {}};
      bool failed = true;
      for (std::size_t after = 0; failed; ++after) {
        SCOPED_TRACE("allocation " + std::to_string(after));
        Workload other(1);
        Workload run(2);
        // Another layer first: what it left must not be taken for this one's weights.
        const auto fabric = Fabric::open(engine, config);
        const auto neighbour = make(fabric, "neighbour", GetParam());
        const auto layer = make(fabric, "layer", GetParam());
        ASSERT_TRUE(other.forward(*neighbour));
        bool thrown = false;
        std::thread([&] {  // of its own, so that what a thread keeps is allocated anew
          testing::FailingNew failing(after);
          thrown = throws_bad_alloc([&] { (void)run.forward(*layer); });
          failed = failing.stop();
        })
            .join();
        EXPECT_LE(thrown, failed);
        // On the device the forward happened whole, or not at all.
        const LayerProfile profile = layer->profile();
        EXPECT_EQ(profile.resident, bank_depth == 1024 && profile.counters.residency_misses == 1);
        EXPECT_EQ(profile.counters.active_ops != 0, profile.counters.residency_misses == 1);
        ASSERT_TRUE(run.forward(*layer));

        const auto clean = Fabric::open(engine, config);
        const auto clean_neighbour = make(clean, "neighbour", GetParam());
        const auto clean_layer = make(clean, "layer", GetParam());
        Workload expected(2);
        ASSERT_TRUE(other.forward(*clean_neighbour));
        ASSERT_TRUE(expected.forward(*clean_layer));
        if (!failed) {
          ASSERT_TRUE(expected.forward(*clean_layer));
        }
        EXPECT_EQ(run.output, expected.output);
        expect_same_bytes(*fabric, *clean);
        if (HasFailure()) return;
        ASSERT_LT(after, 10000U);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Activations, OutOfMemory,
                         ::testing::Values(Activation::kTernary, Activation::kInt8));

TEST(OutOfMemoryLayer, ALayerThatFindsNoneHasNotEntered) {
  const auto fabric = Fabric::open(Engine::kClosedForm, {});
  bool failed = true;
  for (std::size_t after = 0; failed; ++after) {
    std::shared_ptr<Layer> layer;
    testing::FailingNew failing(after);
    const bool thrown = throws_bad_alloc(
        [&] { layer = make(fabric, "a name that is longer than a short string holds"); });
    failed = failing.stop();
    EXPECT_EQ(thrown, failed);
    EXPECT_EQ(fabric->profile().value().layers.size(), failed ? 0U : 1U) << after;
    ASSERT_LT(after, 1000U);
  }
}

}  // namespace
}  // namespace tfmbs::runtime
