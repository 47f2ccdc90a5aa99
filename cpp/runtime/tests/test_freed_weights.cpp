// Weights whose memory goes while the layer holds a reference to it.
#include <gtest/gtest.h>

#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "tfmbs/runtime/layer.hpp"

namespace tfmbs::runtime {
namespace {

using device::Engine;
using device::Fabric;
using execution::SerialExecutor;
using linear::LinearArgs;

// Where the weights stand, as a storage object says that may be emptied or shrunk.
using Place = std::shared_ptr<std::span<const std::byte>>;

class Reference final : public RetainedStorage {
 public:
  explicit Reference(Place place) : place_(std::move(place)) {}
  [[nodiscard]] std::span<const std::byte> memory() const noexcept override { return *place_; }

 private:
  Place place_;
};

class Owner final : public StorageOwner {
 public:
  explicit Owner(Place place) : place_(std::move(place)) {}
  [[nodiscard]] std::shared_ptr<const RetainedStorage> retain() const override {
    return std::make_shared<const Reference>(place_);
  }

 private:
  Place place_;
};

class FreedWeights : public ::testing::Test {
 protected:
  static constexpr std::size_t kOutputs = 3;
  static constexpr std::size_t kDepth = 500;

  // The first output of a forward over ones, of weights that are 1 but for `weight`, which no
  // sample of them sees.
  float forward(float weight, const Place& place, bool by_content = false) {
    weights[1] = weight;
    std::vector<float> out(kOutputs);
    const Owner owner(place);
    EXPECT_TRUE(layer->forward(source(owner, by_content), args(out), SerialExecutor{}));
    return out[0];
  }
  // Whether forward_packed takes the weights for those that are packed.
  bool are_packed(const Place& place, bool by_content = false) {
    std::vector<float> out(kOutputs);
    const Owner owner(place);
    return layer->forward_packed(source(owner, by_content), args(out), SerialExecutor{});
  }
  WeightSource source(const Owner& owner, bool by_content) const {
    return {.data = weights.data(),
            .outputs = kOutputs,
            .depth = kDepth,
            .version = 0,
            .by_content = by_content,
            .owner = &owner};
  }
  LinearArgs args(std::vector<float>& out) const {
    return {.input = ones.data(), .samples = 1, .output = out.data()};
  }
  Place here() const {
    return std::make_shared<std::span<const std::byte>>(std::as_bytes(std::span(weights)));
  }

  std::vector<float> weights = std::vector<float>(kOutputs * kDepth, 1.0F);
  std::vector<float> ones = std::vector<float>(kDepth, 1.0F);
  std::shared_ptr<Layer> layer =
      Layer::make({.identity = {.name = "a"}, .outputs = kOutputs, .depth = kDepth},
                  Fabric::open(Engine::kClosedForm, {}))
          .value();
};

TEST_F(FreedWeights, OfOneAddressAndVersionAreTheSameWhileTheMemoryIsHeld) {
  const Place place = here();
  EXPECT_EQ(forward(1, place), 500.0F);
  EXPECT_EQ(forward(-1, place), 500.0F);  // nobody said that it was written to
  EXPECT_TRUE(are_packed(here()));
}

TEST_F(FreedWeights, AreOthersOnceTheMemoryWasFreed) {
  const Place first = here();
  EXPECT_EQ(forward(1, first), 500.0F);
  *first = {};
  EXPECT_FALSE(are_packed(here()));
  const Place second = here();
  EXPECT_EQ(forward(-1, second), 498.0F);
  EXPECT_TRUE(are_packed(here()));
  *second = std::as_bytes(std::span(ones));  // or moved
  EXPECT_FALSE(are_packed(here()));
  EXPECT_EQ(forward(1, here()), 500.0F);
}

TEST_F(FreedWeights, AreOthersWhereTheirValuesAreAllOthers) {
  const Place place = here();
  EXPECT_EQ(forward(1, place), 500.0F);
  for (float& weight : weights) weight = -weight;  // as memory that came back at its address
  EXPECT_FALSE(are_packed(place));
  EXPECT_EQ(forward(-1, place), -500.0F);
}

// Storage that shrank, and lies where it lay.
TEST_F(FreedWeights, AreNotReadBeyondTheStorageThatIsHeld) {
  for (const bool by_content : {false, true}) {
    const Place place = here();
    EXPECT_EQ(forward(1, place, by_content), 500.0F);
    EXPECT_TRUE(are_packed(place, by_content));
    *place = place->first(place->size() - 1);
    EXPECT_FALSE(are_packed(place, by_content));
    const Place grown = here();
    EXPECT_EQ(forward(1, grown, by_content), 500.0F);
    EXPECT_TRUE(are_packed(place, by_content));
    layer->refresh();
  }
}

TEST_F(FreedWeights, AreNotReadWhereNothingIsHeld) {
  for (const bool by_content : {false, true}) {
    WeightSource unheld = source(Owner(nullptr), by_content);
    unheld.owner = nullptr;
    std::vector<float> out(kOutputs);
    ASSERT_TRUE(layer->forward(unheld, args(out), SerialExecutor{}));
    EXPECT_FALSE(layer->forward_packed(unheld, args(out), SerialExecutor{}));
    layer->refresh();
  }
}

TEST_F(FreedWeights, AreSeenAfterAForwardThatComparedContents) {
  const Place place = here();
  EXPECT_EQ(forward(1, place, true), 500.0F);
  *place = {};
  EXPECT_EQ(forward(-1, here(), true), 498.0F);
  EXPECT_EQ(forward(1, here()), 500.0F);
  EXPECT_TRUE(are_packed(here()));
}

}  // namespace
}  // namespace tfmbs::runtime
