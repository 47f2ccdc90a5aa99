// The estimate against the counters of forwards, and what it refuses.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "tfmbs/device/estimate.hpp"
#include "tfmbs/runtime/layer.hpp"

namespace tfmbs::runtime {
namespace {

using device::Engine;
using device::estimate_forward;
using device::Fabric;
using device::ForwardQuery;
using device::LayerProfile;
using execution::SerialExecutor;
using linear::Activation;

struct Case {
  Geometry geometry;
  std::uint64_t outputs;
  std::uint64_t depth;
  std::size_t samples;
  Activation activation;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  const std::vector<Geometry> geometries{Geometry{}, Geometry::make(3, 7, 31).value(),
                                         Geometry::make(1, 15, 15).value(),
                                         Geometry::make(2, 40, 64).value()};
  for (const Geometry& geometry : geometries) {
    for (const std::uint64_t outputs : {1U, 7U, 45U, 61U, 130U}) {
      for (const std::uint64_t depth : {1U, 15U, 31U, 100U, 1024U, 1110U}) {
        for (const std::size_t samples : {1U, 2U, 5U}) {
          for (const auto activation : {Activation::kTernary, Activation::kInt8}) {
            all.push_back({geometry, outputs, depth, samples, activation});
          }
        }
      }
    }
  }
  return all;
}

// How the device placed the layer: as it said, or streamed through all of an empty bank.
placement::Placement placement_of(const Layer& layer, const Case& c) {
  const LayerProfile profile = layer.profile();
  const auto words = placement::resident_words(c.geometry, c.outputs, c.depth, profile.tile_mask);
  if (words > c.geometry.bank_a_words()) {
    return {profile.tile_mask, 0, c.geometry.bank_a_words(), true};
  }
  return {profile.tile_mask, 0, static_cast<std::uint32_t>(words), false};
}

// No activation and no weight is zero. As int8 they are all 127, which is zero in one of its six
// planes, where the engine takes a cycle a word: a depth costs the same in words of 15 alone.
TEST(Estimate, EqualsTheCountersWhereAllDepthsCostTheSame) {
  std::size_t streamed = 0;
  std::size_t ping_pong = 0;
  for (const Case& c : cases()) {
    SCOPED_TRACE(std::to_string(c.geometry.tiles()) + "x" + std::to_string(c.geometry.lanes()) +
                 "x" + std::to_string(c.geometry.bank_depth()) + ": " + std::to_string(c.outputs) +
                 " x " + std::to_string(c.depth) + ", " + std::to_string(c.samples) + " samples, " +
                 std::string(name_of(c.activation)));
    const auto fabric = Fabric::open(Engine::kClosedForm, {c.geometry, {}});
    const auto layer = Layer::make({.identity = {.name = "layer"},
                                    .outputs = c.outputs,
                                    .depth = c.depth,
                                    .activation = c.activation},
                                   fabric)
                           .value();
    const std::vector<float> weights(c.outputs * c.depth, 1.0F);
    const std::vector<float> input(c.samples * c.depth, 1.0F);
    std::vector<float> output(c.samples * c.outputs);
    for (const bool loaded : {false, true}) {
      ASSERT_TRUE(fabric->reset_counters());
      ASSERT_TRUE(
          layer->forward(WeightSource{.data = weights.data(),
                                      .outputs = c.outputs,
                                      .depth = c.depth,
                                      .version = std::int64_t{0}},
                         {.input = input.data(), .samples = c.samples, .output = output.data()},
                         SerialExecutor{}));
      const fabric::Counters counters = fabric->profile().value().total;
      ForwardQuery query{.geometry = c.geometry,
                         .shape = {c.outputs, c.depth, c.activation == Activation::kInt8 ? 6U : 1U},
                         .placement = placement_of(*layer, c),
                         .samples = c.samples,
                         .loaded = loaded};
      const placement::Schedule schedule(query.geometry, query.shape, query.placement);
      streamed += schedule.placement().streamed ? 1U : 0U;
      ping_pong += schedule.placement().streamed && schedule.ping_pong() ? 1U : 0U;
      if (c.activation == Activation::kInt8 && schedule.chunks() > 1 && c.depth % 15 != 0) continue;
      const std::uint64_t jobs = schedule.passes() * schedule.chunks() * c.samples;
      query.cycles_per_job =
          static_cast<double>(counters.compute_cycles) / static_cast<double>(jobs);
      const auto estimate = estimate_forward(query);
      ASSERT_TRUE(estimate.ok()) << estimate.error().message;
      EXPECT_EQ(estimate.value().cycles, counters.cycles);
      EXPECT_EQ(estimate.value().compute_cycles, counters.compute_cycles);
      EXPECT_EQ(estimate.value().dma_cycles, counters.dma_cycles);
      EXPECT_EQ(estimate.value().mem_reads, counters.mem_reads);
      EXPECT_EQ(estimate.value().mem_writes, counters.mem_writes);
      EXPECT_EQ(estimate.value().jobs, jobs);
      if (::testing::Test::HasFailure()) return;
    }
  }
  EXPECT_GT(ping_pong, 0U);
  EXPECT_GT(streamed, ping_pong);
}

TEST(Estimate, RefusesWhatNoDeviceRuns) {
  const ForwardQuery good{.shape = {60, 784, 1},
                          .placement = {15, 0, 784, false},
                          .samples = 32,
                          .cycles_per_job = 500};
  ASSERT_TRUE(estimate_forward(good).ok());
  const auto refused = [&](auto change) {
    ForwardQuery query = good;
    change(query);
    const auto estimate = estimate_forward(query);
    EXPECT_FALSE(estimate.ok());
    return estimate.ok() ? std::optional<ErrorCode>() : estimate.error().code;
  };
  constexpr auto kInvalid = ErrorCode::kInvalidArgument;
  constexpr auto kPlaced = ErrorCode::kPlacement;
  EXPECT_EQ(refused([](auto& q) { q.shape.outputs = 0; }), kInvalid);
  EXPECT_EQ(refused([](auto& q) { q.shape.depth = 0; }), kInvalid);
  EXPECT_EQ(refused([](auto& q) { q.shape.depth = kMaxDepth + 1; }), kInvalid);
  EXPECT_EQ(refused([](auto& q) { q.shape.planes = 2; }), kInvalid);
  EXPECT_EQ(refused([](auto& q) { q.samples = std::numeric_limits<std::uint64_t>::max(); }),
            kInvalid);
  EXPECT_EQ(refused([](auto& q) { q.placement.tile_mask = 0; }), kInvalid);
  EXPECT_EQ(refused([](auto& q) { q.placement.tile_mask = 16; }), kInvalid);
  EXPECT_EQ(refused([](auto& q) { q.cycles_per_job = 6.9; }), kInvalid);
  EXPECT_EQ(refused([](auto& q) { q.cycles_per_job = 792; }), kInvalid);
  EXPECT_EQ(refused([](auto& q) { q.cycles_per_job = std::nan(""); }), kInvalid);
  EXPECT_EQ(refused([](auto& q) { q.placement.first_word = 241; }), kPlaced);
  EXPECT_EQ(refused([](auto& q) { q.placement.first_word = ~0U; }), kPlaced);
  EXPECT_EQ(refused([](auto& q) { q.placement.words = 783; }), kPlaced);
  EXPECT_EQ(refused([](auto& q) {
              q.placement.streamed = true;
              q.placement.words = 14;
            }),
            kPlaced);
  ForwardQuery none = good;
  none.samples = 0;
  EXPECT_EQ(estimate_forward(none).value().cycles, 0U);
}

TEST(Estimate, TheLargestLayerTakesNoTime) {
  const Geometry geometry = Geometry::make(64, 1, 15).value();
  const auto estimate = estimate_forward({.geometry = geometry,
                                          .shape = {std::uint64_t{1} << 28, kMaxDepth, 6},
                                          .placement = {geometry.all_tiles(), 0, 15, true},
                                          .samples = 1,
                                          .cycles_per_job = 97});
  ASSERT_TRUE(estimate.ok()) << estimate.error().message;
  EXPECT_GT(estimate.value().cycles, std::uint64_t{1} << 46);
}

}  // namespace
}  // namespace tfmbs::runtime
