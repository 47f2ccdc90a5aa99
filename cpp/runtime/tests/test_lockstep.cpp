// Both drivers beside each other over random lives of a device: what it is asked, and in which
// order.
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "test_share.hpp"
#include "tfmbs/runtime/layer.hpp"

namespace tfmbs::runtime {
namespace {

using device::Engine;
using device::Fabric;
using device::LayerProfile;
using execution::SerialExecutor;
using linear::Activation;

// What the scenarios reached, so that none of it goes untested unnoticed.
struct Reached {
  std::size_t hits{0};
  std::size_t evictions{0};
  std::size_t streamed{0};
  std::size_t given{0};
  std::size_t prefetched{0};
  std::size_t uncounted{0};
  std::size_t int8{0};
  std::size_t refused{0};
  std::size_t tasks{0};
  std::size_t loads{0};
};

class Scenario {
 public:
  Scenario(std::uint64_t seed, Reached& reached) : random_(seed), reached_(reached) {
    // Few tiles and short banks: layers take several passes and chunks, and get into each other's
    // way.
    tiles_ = pick({1, 1, 2, 2, 3, 4, 5});
    lanes_ = pick({1, 2, 7, 14, 15, 15, 16, 31});
    depth_ = pick({15, 16, 29, 30, 31, 44, 45, 60, 61, 90, 100});
    fabric_ = Fabric::open(Engine::kLockstep, {Geometry::make(tiles_, lanes_, depth_).value(), {}});
    const std::size_t layers = 1 + below(4);
    for (std::size_t l = 0; l < layers; ++l) models_.push_back(make_model());
  }

  void run() {
    const std::size_t steps = 2 + below(7);
    for (std::size_t s = 0; s < steps && !::testing::Test::HasFailure(); ++s) step();
    const auto total = fabric_->profile().value().total;
    reached_.hits += total.residency_hits;
    reached_.evictions += total.evictions;
  }

 private:
  struct Model {
    std::shared_ptr<Layer> layer;
    std::vector<float> weights;
    std::int64_t version{0};
  };

  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
  std::uint64_t pick(std::initializer_list<std::uint64_t> values) {
    return *(values.begin() + below(values.size()));
  }
  float draw(std::uint64_t zeros) {  // tenths
    if (below(10) < zeros) return 0.0F;
    return static_cast<float>(below(255)) / 64.0F - 2.0F + 1.0F / 256.0F;
  }

  Model make_model() {
    LayerSpec spec{.identity = {.name = "layer"},
                   .outputs = pick({1, lanes_, lanes_ + 1, tiles_ * lanes_, 1 + below(40),
                                    2 * tiles_ * lanes_ + 1}),
                   .depth = pick({1, 15, depth_, depth_ + 1, 1 + below(depth_), 1 + below(30),
                                  1 + below(2 * depth_ + 31)})};
    if (below(2) == 0) spec.activation = Activation::kInt8;
    if (below(3) == 0) spec.identity.tile_mask = 1 + below((std::uint64_t{1} << tiles_) - 1);
    const Geometry& geometry = fabric_->config().geometry;
    if (below(4) == 0) {
      spec.identity.weight_address =
          geometry.bank_a_base(0) + 4 * (below(2) == 0 ? 0 : below(geometry.bank_a_words()));
    }
    Model model;
    if (auto made = Layer::make(spec, fabric_)) {
      model.layer = made.value();
      if (spec.identity.weight_address) ++reached_.given;
    } else {
      spec.identity.weight_address.reset();
      model.layer = Layer::make(spec, fabric_).value();
    }
    fill(model);
    if (below(8) == 0) allow_refusal(model.layer->set_pinned(true));
    return model;
  }

  // Sparse or dense, with empty outputs or whole depths: what a tile skips.
  void fill(Model& model) {
    const LayerSpec& spec = model.layer->spec();
    const std::uint64_t zeros = pick({0, 0, 3, 8, 10});
    const std::uint64_t structure = below(4);
    model.weights.resize(spec.outputs * spec.depth);
    const std::uint64_t edge = below(spec.depth + 1);
    for (std::size_t i = 0; i < model.weights.size(); ++i) {
      const bool empty = (structure == 1 && i % spec.depth < edge) ||
                         (structure == 2 && i / spec.depth * 2 < spec.outputs) ||
                         (structure == 3 && i % spec.depth % 3 == 0);
      model.weights[i] = empty ? 0.0F : draw(zeros);
    }
    ++model.version;
  }

  [[nodiscard]] static WeightSource source(const Model& model) {
    return {.data = model.weights.data(),
            .outputs = model.layer->spec().outputs,
            .depth = model.layer->spec().depth,
            .version = model.version};
  }

  void allow_refusal(const Status& status) {
    if (status) return;
    EXPECT_EQ(status.error().code, ErrorCode::kPlacement) << status.error().message;
    ++reached_.refused;
  }

  void forward(Model& model) {
    const LayerSpec& spec = model.layer->spec();
    const std::size_t samples = pick({1, 1, 2, 3, 4, 5});
    std::vector<float> input(samples * spec.depth);
    const std::uint64_t zeros = pick({0, 2, 6, 9, 10});
    for (float& value : input) value = draw(zeros);
    std::vector<float> output(samples * spec.outputs);
    const bool counted = fabric_->telemetry();
    const Status status = model.layer->forward(
        source(model), {.input = input.data(), .samples = samples, .output = output.data()},
        SerialExecutor{});
    allow_refusal(status);
    if (!status) return;
    if (!model.layer->profile().resident) ++reached_.streamed;
    if (!counted) ++reached_.uncounted;
    if (spec.activation == Activation::kInt8) ++reached_.int8;
  }

  void step() {
    const Geometry& geometry = fabric_->config().geometry;
    Model& model = models_[below(models_.size())];
    switch (below(16)) {
      case 0: {  // a new state of the weights
        fill(model);
        return forward(model);
      }
      case 1: {
        const auto loaded = model.layer->prefetch(source(model), SerialExecutor{});
        if (!loaded) return allow_refusal(loaded.error());
        if (loaded.value()) ++reached_.prefetched;
        return;
      }
      case 2:
        fabric_->set_telemetry(!fabric_->telemetry());
        return;
      case 3:
        EXPECT_TRUE(fabric_->reset_counters());
        return;
      case 4: {
        model.layer.reset();
        model = make_model();
        return;
      }
      case 5:
      case 6: {  // words of any region, some of them no fabric words
        std::vector<std::uint32_t> words(1 + below(20));
        for (auto& word : words) {
          word = static_cast<std::uint32_t>(below(243) | below(243) << 8 | below(243) << 16);
          if (below(40) == 0) word |= 0xFF;
        }
        const auto tile = static_cast<std::uint32_t>(below(tiles_));
        const std::uint64_t base = pick({geometry.bank_a_base(tile), geometry.bank_a_base(tile),
                                         geometry.bank_b_base(tile), geometry.results_base(tile),
                                         geometry.broadcast_base()});
        const Status status = fabric_->load(base + 4 * below(depth_), words);
        if (status) {
          ++reached_.loads;
        } else {
          EXPECT_NE(status.error().code, ErrorCode::kMismatch) << status.error().message;
        }
        return;
      }
      case 7:
      case 8: {
        const auto depth = static_cast<std::uint32_t>(1 + below(depth_));
        const Status status =
            fabric_->run({.weight_base = 4 * below(depth_ + 1 - depth) * geometry.words_per_depth(),
                          .activation_base = 4 * below(3),
                          .depth = depth,
                          .lanes = static_cast<std::uint32_t>(1 + below(lanes_)),
                          .tile_mask = 1 + below((std::uint64_t{1} << tiles_) - 1),
                          .planes = below(3) == 0 ? 6U : 1U,
                          .accumulate = below(2) == 0,
                          .zero_skip = below(4) != 0});
        if (status) {
          ++reached_.tasks;
        } else {
          EXPECT_EQ(status.error().code, ErrorCode::kDescriptor) << status.error().message;
        }
        return;
      }
      default:
        return forward(model);
    }
  }

  std::mt19937_64 random_;
  Reached& reached_;
  std::uint64_t tiles_{0};
  std::uint64_t lanes_{0};
  std::uint64_t depth_{0};
  std::shared_ptr<Fabric> fabric_;
  std::vector<Model> models_;
};

TEST(Lockstep, TheDriversAgreeOverRandomScenarios) {
  const std::size_t count = testing::case_count(testing::kSanitized ? 1000 : 10000);
  Reached reached;
  for (std::size_t i = 0; i < count && !HasFailure(); ++i) {
    const std::uint64_t seed = testing::case_seed(i);
    SCOPED_TRACE("seed " + std::to_string(seed) + " (TFMBS_TEST_SEED moves all)");
    Scenario(seed, reached).run();
  }
  const std::array<std::pair<const char*, std::size_t>, 10> all{{
      {"hits", reached.hits},
      {"evictions", reached.evictions},
      {"streamed", reached.streamed},
      {"given addresses", reached.given},
      {"prefetches", reached.prefetched},
      {"uncounted passes", reached.uncounted},
      {"int8 passes", reached.int8},
      {"refusals", reached.refused},
      {"tasks", reached.tasks},
      {"loads", reached.loads},
  }};
  for (const auto& [name, times] : all) EXPECT_GE(times, count / 20) << name;
}

}  // namespace
}  // namespace tfmbs::runtime
