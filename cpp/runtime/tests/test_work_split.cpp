// How a forward's work is shared: never in parts too small for a thread, and all of it once.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "tfmbs/linear/packing_policy.hpp"
#include "tfmbs/runtime/layer.hpp"
#include "threaded_executor.hpp"

namespace tfmbs::runtime {
namespace {

using device::Engine;
using device::Fabric;
using execution::Executor;
using execution::RangeFunction;
using execution::SerialExecutor;
using execution::ThreadedExecutor;
using linear::Activation;
using linear::LinearArgs;
using linear::preferred_layout;
using linear::set_weight_storage;
using linear::weight_storage;
using linear::WeightStorage;

// Runs everything on the calling thread, as one that has two would share it.
class Recorder final : public Executor {
 public:
  [[nodiscard]] std::size_t threads() const noexcept override { return 2; }
  void parallel_for(std::size_t count, std::size_t grain, RangeFunction body) const override {
    if (count > grain) shared_ = true;
    if (count != 0) body(0, count);
  }
  [[nodiscard]] bool shared() const noexcept { return shared_; }

 private:
  mutable bool shared_{false};
};

bool is_shared(std::uint64_t outputs, std::uint64_t depth, std::size_t samples) {
  const auto layer = Layer::make({.identity = {.name = "layer"},
                                  .outputs = outputs,
                                  .depth = depth,
                                  .activation = Activation::kInt8},
                                 Fabric::open(Engine::kClosedForm, {}))
                         .value();
  const std::vector<float> weights(outputs * depth, 1.0F);
  const std::vector<float> input(samples * depth, 1.0F);
  std::vector<float> out(samples * outputs);
  const Recorder recorder;
  const WeightSource source{.data = weights.data(), .outputs = outputs, .depth = depth};
  const LinearArgs args{.input = input.data(), .samples = samples, .output = out.data()};
  EXPECT_TRUE(layer->forward(source, args, SerialExecutor{}));  // packs
  EXPECT_TRUE(layer->forward(source, args, recorder));
  EXPECT_EQ(out.back(), static_cast<float>(depth));
  return recorder.shared();
}

TEST(WorkSplit, WideAndNarrowLayersAreSharedAlike) {
  EXPECT_TRUE(is_shared(1024, 4096, 1));  // 4 M products each
  EXPECT_TRUE(is_shared(4096, 1024, 1));
  EXPECT_TRUE(is_shared(640, 2560, 1));
  EXPECT_TRUE(is_shared(128, 4096, 8));
  EXPECT_TRUE(is_shared(64, 256, 512));
  EXPECT_TRUE(is_shared(10, 60, 512));  // few products, but many rows
}

TEST(WorkSplit, LittleWorkIsNot) {
  EXPECT_FALSE(is_shared(60, 784, 1));
  EXPECT_FALSE(is_shared(10, 60, 64));
  EXPECT_FALSE(is_shared(1024, 1024, 1));  // 2^20 products
  EXPECT_FALSE(is_shared(65, 1024, 8));
  EXPECT_FALSE(is_shared(129, 512, 8));
}

// Threads that tell whether they were all called for blocks.
class Watched final : public Executor {
 public:
  explicit Watched(std::size_t threads) : threads_(threads) {}
  [[nodiscard]] std::size_t threads() const noexcept override { return threads_.threads(); }
  void parallel_for(std::size_t count, std::size_t grain, RangeFunction body) const override {
    if (count == threads() && grain == 1) took_blocks_ = true;
    threads_.parallel_for(count, grain, body);
  }
  [[nodiscard]] bool took_blocks() const noexcept { return took_blocks_; }

 private:
  ThreadedExecutor threads_;
  mutable bool took_blocks_{false};
};

class InEveryStorage : public testing::TestWithParam<std::tuple<WeightStorage, Activation>> {
 protected:
  void SetUp() override { set_weight_storage(std::get<0>(GetParam())); }
  void TearDown() override { set_weight_storage(before_); }

 private:
  WeightStorage before_{weight_storage()};
};

// Output `n` of a row of zeros but for one input is that input's weight: sums that owe nothing to
// the kernels. More outputs than one kernel call has for 64 rows, the last few of a panel.
TEST_P(InEveryStorage, AKernelCallEndsWhereTheNextBegins) {
  constexpr std::uint64_t kOutputs = 2 * 4096 + 70;
  constexpr std::uint64_t kDepth = 67;
  constexpr std::size_t kSamples = 130;
  const auto [storage, activation] = GetParam();
  const auto layer = Layer::make({.identity = {.name = "layer"},
                                  .outputs = kOutputs,
                                  .depth = kDepth,
                                  .activation = activation},
                                 Fabric::open(Engine::kClosedForm, {}))
                         .value();
  const auto weight = [](std::uint64_t n, std::uint64_t k) {
    return static_cast<float>(static_cast<int>((n * 7 + n / 64 + k * 5) % 3) - 1);
  };
  std::vector<float> weights(kOutputs * kDepth);
  for (std::uint64_t i = 0; i < weights.size(); ++i) weights[i] = weight(i / kDepth, i % kDepth);
  std::vector<float> input(kSamples * kDepth);
  for (std::size_t m = 0; m < kSamples; ++m) input[m * kDepth + m % kDepth] = 1.0F;
  const WeightSource source{.data = weights.data(), .outputs = kOutputs, .depth = kDepth};
  for (const std::size_t threads : {1U, 2U, 3U}) {
    std::vector<float> out(kSamples * kOutputs, -1.5F);
    ASSERT_TRUE(layer->forward(source,
                               {.input = input.data(), .samples = kSamples, .output = out.data()},
                               ThreadedExecutor(threads)));
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::size_t m = i / kOutputs;
      ASSERT_EQ(std::lround(out[i]), std::lround(weight(i % kOutputs, m % kDepth)))
          << threads << " threads, row " << m << ", output " << i % kOutputs;
    }
  }
}

// Batches large enough for blocks, with short last ones, and some that are not.
TEST_P(InEveryStorage, BlocksMakeTheWholeOutput) {
  constexpr std::uint32_t kSeed = 20261123;
  std::mt19937 random(kSeed);
  const auto [storage, activation] = GetParam();
  struct Shape {
    std::uint64_t outputs, depth;
    std::size_t samples;
    bool blocks;  // for two threads
  };
  for (const auto& [outputs, depth, samples, blocks] : {Shape{2500, 70, 600, true},
                                                        {1025, 500, 1000, true},
                                                        {40, 1600, 4003, true},
                                                        {1100, 4096, 8, false},    // few rows
                                                        {4000, 40, 70, false}}) {  // small blocks
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", " + std::to_string(samples) + " x " +
                 std::to_string(depth) + " x " + std::to_string(outputs));
    const auto layer = Layer::make({.identity = {.name = "layer"},
                                    .outputs = outputs,
                                    .depth = depth,
                                    .activation = activation},
                                   Fabric::open(Engine::kClosedForm, {}))
                           .value();
    std::normal_distribution<float> normal;
    std::vector<float> weights(outputs * depth);
    std::vector<float> input(samples * depth);
    for (float& value : weights) value = normal(random);
    for (float& value : input) value = normal(random);
    const WeightSource source{.data = weights.data(), .outputs = outputs, .depth = depth};
    std::vector<float> expected(samples * outputs);
    ASSERT_TRUE(layer->forward(
        source, {.input = input.data(), .samples = samples, .output = expected.data()},
        SerialExecutor{}));
    ASSERT_EQ(layer->packed_layout(), preferred_layout(activation));
    for (const std::size_t threads : {2U, 3U}) {
      const Watched executor(threads);
      std::vector<float> out(samples * outputs, -1.0F);
      ASSERT_TRUE(layer->forward(
          source, {.input = input.data(), .samples = samples, .output = out.data()}, executor));
      ASSERT_EQ(out, expected) << threads << " threads";
      if (threads == 2) {
        EXPECT_EQ(executor.took_blocks(), blocks);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    WorkSplit, InEveryStorage,
    testing::Combine(testing::Values(WeightStorage::kCached, WeightStorage::kStreamed),
                     testing::Values(Activation::kInt8, Activation::kTernary)));

}  // namespace
}  // namespace tfmbs::runtime
