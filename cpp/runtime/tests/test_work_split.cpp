// How a forward's work is shared: never in parts too small for a thread.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
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

}  // namespace
}  // namespace tfmbs::runtime
