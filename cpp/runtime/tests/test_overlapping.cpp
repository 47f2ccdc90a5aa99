// Threads whose work overlaps on one device of the closed form, while others read it, layers come
// and leave, and the process forks.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#ifdef __unix__
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "fork_gate.hpp"
#include "recording_driver.hpp"
#include "same_device.hpp"
#include "tfmbs/runtime/layer.hpp"

namespace tfmbs::runtime {
namespace {

using device::Engine;
using device::expect_same_device;
using device::Fabric;
using execution::SerialExecutor;
using linear::Activation;

// 100 words a bank: no two of the layers fit, and the last one streams.
const fabric::FabricConfig kConfig{Geometry::make(2, 15, 100).value(), {}};

#if defined(__SANITIZE_THREAD__)  // GCC
constexpr bool kThreadSanitizer = true;
#elif defined(__has_feature)
constexpr bool kThreadSanitizer = __has_feature(thread_sanitizer);
#else
constexpr bool kThreadSanitizer = false;
#endif

struct Task {
  std::uint64_t outputs;
  std::uint64_t depth;
  std::size_t samples;
  Activation activation;
};
constexpr std::array<Task, 5> kTasks{{
    {40, 30, 2, Activation::kTernary},
    {30, 60, 3, Activation::kInt8},
    {20, 70, 1, Activation::kTernary},
    {15, 45, 5, Activation::kTernary},
    {31, 120, 2, Activation::kInt8},
}};

struct Model {
  std::shared_ptr<Layer> layer;
  std::size_t samples{0};
  std::vector<float> weights;
  std::vector<float> input;

  Model(const std::shared_ptr<Fabric>& fabric, std::size_t number) {
    const Task& task = kTasks[number % kTasks.size()];
    samples = task.samples;
    std::mt19937 random(static_cast<unsigned>(number));
    const auto draw = [&] { return static_cast<float>(static_cast<int>(random() % 5) - 2); };
    for (std::size_t i = 0; i < task.outputs * task.depth; ++i) weights.push_back(draw());
    for (std::size_t i = 0; i < samples * task.depth; ++i) input.push_back(draw());
    layer = Layer::make({.identity = {.name = "layer" + std::to_string(number)},
                         .outputs = task.outputs,
                         .depth = task.depth,
                         .activation = task.activation},
                        fabric)
                .value();
  }
  [[nodiscard]] WeightSource source() const {
    const LayerSpec& spec = layer->spec();
    return {.data = weights.data(), .outputs = spec.outputs, .depth = spec.depth, .version = 0};
  }
  [[nodiscard]] Status forward() const {
    std::vector<float> output(samples * layer->spec().outputs);
    return layer->forward(source(),
                          {.input = input.data(), .samples = samples, .output = output.data()},
                          SerialExecutor{});
  }
};

// The device ends as one that did the same work in the order of its admissions, one after another.
TEST(Overlapping, EqualsTheOrderOfAdmissions) {
  for (int round = 0; round < 5; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    auto recording =
        std::make_unique<testing::RecordingDriver>(device::make_closed_form_driver(kConfig));
    const testing::RecordingDriver& recorded = *recording;
    const auto fabric = Fabric::open(std::move(recording), kConfig);
    const auto clean = Fabric::open(Engine::kClosedForm, kConfig);
    std::vector<Model> models;
    std::vector<Model> clean_models;
    for (std::size_t m = 0; m < kTasks.size(); ++m) {
      models.emplace_back(fabric, m);
      clean_models.emplace_back(clean, m);
    }
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937 random(static_cast<unsigned>(100 * round) + static_cast<unsigned>(t));
        for (int i = 0; i < 30; ++i) {
          const Model& model = models[random() % models.size()];
          if (random() % 5 == 0) {
            EXPECT_TRUE(model.layer->prefetch(model.source(), SerialExecutor{}));
          } else {
            EXPECT_TRUE(model.forward());
          }
        }
      });
    }
    // Each look at the memory writes out what was recorded until then.
    std::thread reader([&] {
      std::vector<std::uint32_t> words(100);
      for (int i = 0; i < 10; ++i) {
        EXPECT_TRUE(fabric->read(kConfig.geometry.bank_a_base(0), words));
        EXPECT_TRUE(fabric->results(-1));
        EXPECT_TRUE(fabric->profile());
      }
    });
    for (auto& thread : threads) thread.join();
    reader.join();
    // Layers' names end with their number, and stay.
    for (const auto& [name, samples] : recorded.admitted()) {
      const Model& model = clean_models[static_cast<std::size_t>(name.back() - '0')];
      if (samples == 0) {
        ASSERT_TRUE(model.layer->prefetch(model.source(), SerialExecutor{}));
      } else {
        ASSERT_TRUE(model.forward());
      }
    }
    EXPECT_GE(recorded.admitted().size(), 100U);
    expect_same_device(*fabric, *clean);
    if (HasFailure()) return;
  }
}

// Readers wait for work under way; new work must not keep them waiting for ever.
TEST(Overlapping, ReadersFindTheirTurn) {
  const auto fabric = Fabric::open(Engine::kClosedForm, kConfig);
  std::vector<Model> models;
  for (std::size_t m = 0; m < kTasks.size(); ++m) models.emplace_back(fabric, m);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      while (!stop) {
        EXPECT_TRUE(models[t].forward());
      }
    });
  }
  std::vector<std::uint32_t> words(10);
  for (int i = 0; i < 50; ++i) {
    EXPECT_TRUE(fabric->read(kConfig.geometry.bank_a_base(0), words));
  }
  stop = true;
  for (auto& thread : threads) thread.join();
}

TEST(Overlapping, LayersComeAndLeaveBesideWork) {
  const auto fabric = Fabric::open(Engine::kClosedForm, kConfig);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < 30; ++i) {
        const Model model(fabric, t + i);
        EXPECT_TRUE(model.forward());
        EXPECT_TRUE(model.forward());
        EXPECT_TRUE(fabric->profile());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  const auto profile = fabric->profile().value();
  EXPECT_TRUE(profile.layers.empty());
  EXPECT_EQ(profile.total.residency_hits + profile.total.residency_misses, 240U);
  const Model last(fabric, 1);
  EXPECT_TRUE(last.forward());
  EXPECT_TRUE(last.layer->profile().resident);
}

#ifdef __unix__
// A child's device is whole, unlocked, and works. It runs layers of its own: those of other threads
// are unlocked only where the registry has them.
TEST(Overlapping, AForkBesideWorkFindsTheDeviceWhole) {
  if (kThreadSanitizer) GTEST_SKIP() << "ThreadSanitizer knows no threads of a child";
  testing::ForkGate gate;
  const auto fabric = Fabric::open(Engine::kClosedForm, kConfig);
  std::vector<Model> models;
  for (std::size_t m = 0; m < kTasks.size(); ++m) models.emplace_back(fabric, m);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      while (!stop) {
        const auto hold = gate.allocating();
        EXPECT_TRUE(models[t].forward());
      }
    });
  }
  for (int i = 0; i < 20; ++i) {
    pid_t child = 0;
    {
      const auto hold = gate.forking();
      child = fork();
    }
    ASSERT_GE(child, 0);
    if (child == 0) {
      alarm(60);
      std::vector<std::uint32_t> words(10);
      const auto before = fabric->profile();
      bool right = before.ok() && models[2].forward().ok() && models[3].forward().ok();
      right = right && fabric->read(kConfig.geometry.bank_a_base(0), words).ok();
      right = right && fabric->profile().value().total.active_ops > before.value().total.active_ops;
      _exit(right ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  stop = true;
  for (auto& thread : threads) thread.join();
}
#endif

}  // namespace
}  // namespace tfmbs::runtime
