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
#include "test_share.hpp"
#include "tfmbs/runtime/layer.hpp"

namespace tfmbs::runtime {
namespace {

using device::Engine;
using device::expect_same_device;
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
  std::int64_t version{0};

  explicit Workload(unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_int_distribution<int> trit(-1, 1);
    for (std::size_t i = 0; i < kOutputs * kDepth; ++i)
      weights.push_back(static_cast<float>(trit(random)));
    for (std::size_t i = 0; i < kSamples * kDepth; ++i)
      input.push_back(static_cast<float>(trit(random)));
  }
  [[nodiscard]] WeightSource source() const {
    return {.data = weights.data(), .outputs = kOutputs, .depth = kDepth, .version = version};
  }
  void negate() {
    for (float& weight : weights) weight = -weight;
    ++version;
  }
  Result<bool> prefetch(Layer& layer) const { return layer.prefetch(source(), SerialExecutor{}); }
  Status forward(Layer& layer) {
    return layer.forward(source(),
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

// A layer that is resident lies in Bank A as a load on another device writes it.
void expect_resident_bytes(Fabric& fabric, const Layer& layer, const Workload& workload) {
  const LayerProfile profile = layer.profile();
  if (!profile.resident) return;
  const auto clean = Fabric::open(Engine::kStepped, fabric.config());
  LayerSpec spec = layer.spec();
  spec.identity.weight_address = profile.weight_address;
  const auto copy = Layer::make(spec, clean).value();
  ASSERT_TRUE(workload.prefetch(*copy).value());
  device::expect_same_weights(fabric, *clean, {kOutputs, kDepth, 1}, profile);
}

class OutOfMemory : public ::testing::TestWithParam<Activation> {};

// What happens before the call for which there is no memory.
enum class Before : std::uint8_t {
  kNothing,       // its first forward pass
  kSame,          // it has run before
  kOtherWeights,  // with other weights
  kEvicted,       // and another layer has run since
};

struct Device {
  Device(Engine engine, std::uint64_t bank_depth, Activation activation, Before before)
      : fabric(Fabric::open(engine, {Geometry::make(2, 15, bank_depth).value(), {}})),
        neighbour(make(fabric, "neighbour", activation)),
        layer(make(fabric, "layer", activation)) {
    // Another layer first: what it left must not be taken for this one's weights.
    EXPECT_TRUE(other.forward(*neighbour));
    if (before == Before::kNothing) return;
    EXPECT_TRUE(run.forward(*layer));
    if (before == Before::kOtherWeights) run.negate();
    if (before == Before::kEvicted) {
      EXPECT_TRUE(other.forward(*neighbour));
    }
  }
  Status call(bool prefetch) {
    if (!prefetch) return run.forward(*layer);
    const auto loaded = run.prefetch(*layer);
    if (loaded) return {};
    return loaded.error();
  }

  Workload other{1};
  Workload run{2};
  std::shared_ptr<Fabric> fabric;
  std::shared_ptr<Layer> neighbour;
  std::shared_ptr<Layer> layer;
};

// Every allocation of a forward pass or a prefetch fails once: the device is then as one that was
// not asked, and stays so.
TEST_P(OutOfMemory, ACallThatFindsNoneHasNotBeenMade) {
  constexpr std::uint64_t kAllFit = 420;
  constexpr std::uint64_t kOneFits = 250;
  constexpr std::uint64_t kAllStream = 64;
  for (const Engine engine : {Engine::kClosedForm, Engine::kStepped, Engine::kLockstep}) {
    for (const std::uint64_t bank_depth : {kAllFit, kOneFits, kAllStream}) {
      for (const Before before :
           {Before::kNothing, Before::kSame, Before::kOtherWeights, Before::kEvicted}) {
        for (const bool prefetch : {false, true}) {
          SCOPED_TRACE(std::string(name_of(engine)) + ", " + std::to_string(bank_depth) +
                       " depths, before: " + std::to_string(static_cast<int>(before)) +
                       (prefetch ? ", prefetch" : ", forward pass"));
          bool failed = true;
          for (std::size_t after = 0; failed; after += testing::kSanitized ? 3 : 1) {
            SCOPED_TRACE("allocation " + std::to_string(after));
            Device device(engine, bank_depth, GetParam(), before);
            Device clean(engine, bank_depth, GetParam(), before);
            bool thrown = false;
            std::thread([&] {  // of its own, so that what a thread keeps is allocated anew
              testing::FailingNew failing(after);
              thrown = throws_bad_alloc([&] { (void)device.call(prefetch); });
              failed = failing.stop();
            })
                .join();
            EXPECT_LE(thrown, failed);
            if (!thrown) {
              ASSERT_TRUE(clean.call(prefetch));
            }
            // To read the banks writes out what the closed form has recorded: only every other
            // time.
            if (after % 2 == 0) expect_same_device(*device.fabric, *clean.fabric);
            ASSERT_TRUE(device.run.forward(*device.layer));
            ASSERT_TRUE(clean.run.forward(*clean.layer));
            EXPECT_EQ(device.run.output, clean.run.output);
            // Who is used least recently shows in who makes way.
            ASSERT_TRUE(device.other.forward(*device.neighbour));
            ASSERT_TRUE(clean.other.forward(*clean.neighbour));
            expect_same_device(*device.fabric, *clean.fabric);
            if (HasFailure()) return;
            ASSERT_LT(after, 10000U);
          }
        }
      }
    }
  }
}

// One thread finds no memory now and then while others work on the same device.
TEST_P(OutOfMemory, OfOneThreadLeavesTheOthersAlone) {
  constexpr std::size_t kCalls = 60;
  for (const Engine engine : {Engine::kClosedForm, Engine::kStepped, Engine::kLockstep}) {
    for (const bool one_layer : {false, true}) {
      SCOPED_TRACE(std::string(name_of(engine)) + (one_layer ? ", one layer" : ", two layers"));
      const auto fabric = Fabric::open(engine, {Geometry::make(2, 15, 250).value(), {}});
      const auto layer = make(fabric, "layer", GetParam());
      const auto other = one_layer ? layer : make(fabric, "other", GetParam());
      // What one pass counts.
      const auto ops_of = [&](Layer& one, unsigned seed) {
        Workload run(seed);
        EXPECT_TRUE(run.forward(one));
        const auto ops = fabric->profile().value().total.active_ops;
        EXPECT_TRUE(fabric->reset_counters());
        return ops;
      };
      const unsigned other_seed = one_layer ? 1 : 2;
      const std::uint64_t layer_ops = ops_of(*layer, 1);
      const std::uint64_t other_ops = ops_of(*other, other_seed);
      std::size_t failed = 0;
      std::thread failing_thread([&] {
        Workload run(1);
        for (std::size_t i = 0; i < kCalls; ++i) {
          if (i % 7 == 0) layer->refresh();  // a first pass again
          testing::FailingNew failing(i * 7 % 41);
          const bool thrown = throws_bad_alloc([&] { (void)run.forward(*layer); });
          failing.stop();
          if (thrown) ++failed;
        }
      });
      std::thread passing_thread([&] {
        Workload run(other_seed);
        for (std::size_t i = 0; i < kCalls; ++i) {
          EXPECT_TRUE(run.forward(*other));
        }
      });
      failing_thread.join();
      passing_thread.join();
      const device::Profile profile = fabric->profile().value();
      EXPECT_GT(failed, 0U);
      EXPECT_EQ(profile.total.active_ops, (kCalls - failed) * layer_ops + kCalls * other_ops);
      fabric::Counters sum;
      for (const LayerProfile& one : profile.layers) sum += one.counters;
      EXPECT_EQ(sum, profile.total);
      // A load that the other thread's pass found stays, and counts as a miss.
      const std::uint64_t passes = 2 * kCalls - failed;
      const std::uint64_t used = profile.total.residency_hits + profile.total.residency_misses;
      if (one_layer) {
        EXPECT_GE(used, passes);
      } else {
        EXPECT_EQ(used, passes);
      }
      expect_resident_bytes(*fabric, *layer, Workload(1));
      expect_resident_bytes(*fabric, *other, Workload(other_seed));
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
