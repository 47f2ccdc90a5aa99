// How a forward's work is shared: never in parts too small for a thread, and all of it once.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tfmbs/runtime/layer.hpp"

namespace tfmbs::runtime {
namespace {

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
  const auto layer =
      Layer::make(
          {.name = "layer", .outputs = outputs, .depth = depth, .activation = Activation::kInt8},
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

// A thread for each range.
class Threads final : public Executor {
 public:
  explicit Threads(std::size_t threads) : threads_(threads) {}
  [[nodiscard]] std::size_t threads() const noexcept override { return threads_; }
  void parallel_for(std::size_t count, std::size_t /*grain*/, RangeFunction body) const override {
    std::vector<std::jthread> running;
    for (std::size_t t = 0; t < threads_; ++t) {
      const std::size_t begin = count * t / threads_;
      const std::size_t end = count * (t + 1) / threads_;
      if (begin != end) running.emplace_back([=] { body(begin, end); });
    }
  }

 private:
  std::size_t threads_;
};

TEST(GuidedFor, RunsEachOnce) {
  constexpr int kRepetitions = 50;  // for threads to meet
  for (const std::size_t threads : {1U, 2U, 3U, 8U}) {
    const Threads executor(threads);
    for (const std::size_t count : {0U, 1U, 2U, 3U, 7U, 8U, 9U, 100U, 1001U}) {
      std::vector<std::atomic<int>> runs(count);
      for (int repetition = 0; repetition < kRepetitions; ++repetition) {
        guided_for(executor, count, [&](std::size_t begin, std::size_t end) {
          ASSERT_LT(begin, end);
          ASSERT_LE(end, count);
          for (std::size_t i = begin; i < end; ++i) ++runs[i];
          std::this_thread::yield();
        });
      }
      for (const auto& one : runs) {
        ASSERT_EQ(one, kRepetitions) << threads << " threads, " << count;
      }
    }
  }
}

TEST(GuidedFor, PortionsShrinkToOne) {
  std::vector<std::size_t> portions;
  guided_for(Recorder{}, 100,
             [&](std::size_t begin, std::size_t end) { portions.push_back(end - begin); });
  EXPECT_EQ(portions.front(), 25U);  // a quarter of all, for two threads
  EXPECT_EQ(portions.back(), 1U);
  EXPECT_TRUE(std::is_sorted(portions.rbegin(), portions.rend()));
}

TEST(GuidedFor, OneRangeOfManyTakesAll) {
  std::size_t run = 0;
  guided_for(Recorder{}, 77, [&](std::size_t begin, std::size_t end) { run += end - begin; });
  EXPECT_EQ(run, 77U);
}

TEST(GuidedFor, ThrowsWhatABodyThrows) {
  const auto fails = [](std::size_t, std::size_t) { throw std::runtime_error("no"); };
  EXPECT_THROW(guided_for(SerialExecutor{}, 5, fails), std::runtime_error);
}

// Batches large enough for blocks, in every layout, with short last blocks.
TEST(WorkSplit, BlocksMakeTheWholeOutput) {
  constexpr std::uint32_t kSeed = 20261123;
  std::mt19937 random(kSeed);
  struct Shape {
    std::uint64_t outputs, depth;
    std::size_t samples;
  };
  for (const auto& [outputs, depth, samples] :
       {Shape{2500, 70, 300}, {1025, 500, 1000}, {40, 800, 4003}, {3000, 520, 200}}) {
    for (const Activation activation : {Activation::kInt8, Activation::kTernary}) {
      SCOPED_TRACE("seed " + std::to_string(kSeed) + ", " + std::to_string(samples) + " x " +
                   std::to_string(depth) + " x " + std::to_string(outputs));
      const auto layer =
          Layer::make(
              {.name = "layer", .outputs = outputs, .depth = depth, .activation = activation},
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
      for (const std::size_t threads : {2U, 3U}) {
        std::vector<float> out(samples * outputs, -1.0F);
        ASSERT_TRUE(layer->forward(
            source, {.input = input.data(), .samples = samples, .output = out.data()},
            Threads(threads)));
        ASSERT_EQ(out, expected) << threads << " threads";
      }
    }
  }
}

}  // namespace
}  // namespace tfmbs::runtime
