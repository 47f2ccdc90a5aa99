// Definitions, forwards and releases of one slot from many threads, and over a fork.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#ifdef __unix__
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "c_layer.hpp"
#include "fork_gate.hpp"
#include "tfmbs/device/fabric.hpp"

namespace tfmbs {
namespace {

using device::Engine;
using device::Fabric;
using testing::CLayer;

constexpr std::size_t kOutputs = 30;
constexpr std::size_t kDepth = 40;

// Weights of +1 (1 + 3 + 9 + 27 + 81) and inputs of ones: every output is the depth.
std::unique_ptr<CLayer> layer_of_ones(const Fabric& fabric) {
  auto layer = std::make_unique<CLayer>();
  layer->outputs = kOutputs;
  layer->depth = kDepth;
  layer->weights.assign(kOutputs * kDepth / 5, 121);
  layer->fabric = fabric.spec().to_text();
  return layer;
}

bool is_right(CLayer& layer) {
  const std::vector<float> input(kDepth, 1.0F);
  std::vector<float> output(kOutputs);
  return layer.forward(input, output) == TFMBS_OK &&
         output == std::vector<float>(kOutputs, static_cast<float>(kDepth));
}

void in_threads(int count, const auto& body) {
  std::vector<std::thread> threads;
  threads.reserve(static_cast<std::size_t>(count));
  for (int t = 0; t < count; ++t) threads.emplace_back(body, t);
  for (auto& thread : threads) thread.join();
}

TEST(CThreads, OfManyThatDefineOneDoes) {
  for (int round = 0; round < 50; ++round) {
    const auto fabric = Fabric::open(Engine::kClosedForm, {});
    const auto layer = layer_of_ones(*fabric);
    in_threads(6, [&](int) {
      EXPECT_EQ(layer->define(), TFMBS_OK);
      EXPECT_TRUE(is_right(*layer));
    });
    const auto layers = fabric->profile().value().layers;
    ASSERT_EQ(layers.size(), 1U);
    EXPECT_EQ(layers[0].name, "fc");  // no loser took the name
    EXPECT_EQ(layers[0].counters.residency_misses, 1U);
    EXPECT_EQ(layers[0].counters.residency_hits, 5U);
  }
}

TEST(CThreads, ANameThatIsTakenGetsASuffix) {
  const auto fabric = Fabric::open(Engine::kClosedForm, {});
  const auto first = layer_of_ones(*fabric);
  const auto second = layer_of_ones(*fabric);
  ASSERT_EQ(first->define(), TFMBS_OK);
  ASSERT_EQ(second->define(), TFMBS_OK);
  EXPECT_EQ(fabric->profile().value().layers[1].name, "fc-1");
}

TEST(CThreads, AReleaseUnderForwardsIsSafe) {
  const auto fabric = Fabric::open(Engine::kClosedForm, {});
  const auto layer = layer_of_ones(*fabric);
  std::atomic<int> right{0};
  in_threads(4, [&](int t) {
    const std::vector<float> input(kDepth, 1.0F);
    for (int i = 0; i < 500; ++i) {
      if (t == 0) {
        tfmbs_layer_release(&layer->slot);
        continue;
      }
      EXPECT_EQ(layer->define(), TFMBS_OK) << tfmbs_last_error(nullptr);
      std::vector<float> output(kOutputs, 7.0F);
      if (layer->forward(input, output) == TFMBS_OK) {
        EXPECT_EQ(output[kOutputs - 1], static_cast<float>(kDepth));
        ++right;
      } else {  // released between
        EXPECT_NE(std::string(tfmbs_last_error(nullptr)).find("holds no layer"), std::string::npos);
      }
    }
  });
  EXPECT_GT(right, 0);
  tfmbs_layer_release(&layer->slot);
  EXPECT_TRUE(fabric->profile().value().layers.empty());
}

TEST(CThreads, TheLayerKeepsItsDevice) {
  std::unique_ptr<CLayer> layer;
  std::weak_ptr<Fabric> device;
  {
    const auto fabric = Fabric::open(Engine::kClosedForm, {});
    device = fabric;
    layer = layer_of_ones(*fabric);
    ASSERT_EQ(layer->define(), TFMBS_OK);
  }
  EXPECT_TRUE(is_right(*layer));
  EXPECT_FALSE(device.expired());
  tfmbs_layer_release(&layer->slot);
  EXPECT_TRUE(device.expired());
}

#ifdef __unix__
// Whatever other threads do at the fork, the child can use the slots.
TEST(CThreads, AForkedChildGoesOn) {
  const auto fabric = Fabric::open(Engine::kClosedForm, {});
  const auto layer = layer_of_ones(*fabric);
  const auto other = layer_of_ones(*fabric);
  ASSERT_EQ(layer->define(), TFMBS_OK);
  testing::ForkGate gate;
  std::atomic<bool> stop{false};
  std::latch started{1};
  std::thread busy([&] {
    started.count_down();
    while (!stop) {
      const auto hold = gate.allocating();
      (void)other->define();
      (void)is_right(*other);
      (void)is_right(*layer);
      tfmbs_layer_release(&other->slot);
    }
  });
  started.wait();
  for (int i = 0; i < 30; ++i) {
    auto hold = gate.forking();
    const pid_t child = fork();
    if (child == 0) {
      alarm(5);
      bool right = is_right(*layer);
      const auto own = layer_of_ones(*fabric);
      right = right && own->define() == TFMBS_OK && is_right(*own);
      tfmbs_layer_release(&own->slot);
      _exit(right ? 0 : 1);
    }
    if (hold) hold.unlock();
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "fork " << i << ": " << status;
  }
  stop = true;
  busy.join();
}
#endif

}  // namespace
}  // namespace tfmbs
