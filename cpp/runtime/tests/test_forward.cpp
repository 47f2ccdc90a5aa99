// Layers end to end: exact results, and the closed form against the stepped engine.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <thread>

#include "same_device.hpp"
#include "tfmbs/device/lane_statistics.hpp"
#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/runtime/layer.hpp"
#include "tfmbs/runtime/layer_registry.hpp"
#include "threaded_executor.hpp"

namespace tfmbs::runtime {
namespace {

using device::Engine;
using device::expect_same_device;
using device::Fabric;
using device::FabricSpec;
using device::LaneBlock;
using device::LaneStatistics;
using execution::SerialExecutor;
using execution::ThreadedExecutor;
using linear::Activation;
using linear::WeightQuantizer;

struct Problem {
  std::uint64_t outputs;
  std::uint64_t depth;
  std::size_t samples;
  std::vector<float> weights;
  std::vector<float> input;
  std::vector<float> bias;
};

// A float of either sign, or zero with probability `sparsity`.
float draw(std::mt19937_64& random, double sparsity) {
  if (std::uniform_real_distribution<>(0, 1)(random) < sparsity) return 0.0F;
  return std::uniform_real_distribution<float>(-1, 1)(random);
}

Problem make_problem(std::mt19937_64& random, std::uint64_t outputs, std::uint64_t depth,
                     std::size_t samples, double sparsity) {
  Problem problem{outputs, depth, samples, {}, {}, {}};
  for (std::size_t i = 0; i < outputs * depth; ++i)
    problem.weights.push_back(draw(random, sparsity));
  for (std::size_t i = 0; i < samples * depth; ++i) problem.input.push_back(draw(random, sparsity));
  for (std::size_t i = 0; i < outputs; ++i) problem.bias.push_back(draw(random, 0));
  return problem;
}

int sign(float x) { return (x > 0) - (x < 0); }

std::vector<float> reference(const Problem& p) {
  std::vector<float> out;
  for (std::size_t m = 0; m < p.samples; ++m) {
    for (std::size_t n = 0; n < p.outputs; ++n) {
      int sum = 0;
      for (std::size_t k = 0; k < p.depth; ++k) {
        sum += sign(p.input[m * p.depth + k]) * sign(p.weights[n * p.depth + k]);
      }
      out.push_back(static_cast<float>(sum) + p.bias[n]);
    }
  }
  return out;
}

std::vector<float> run(Layer& layer, const Problem& p, std::int64_t version = 0) {
  std::vector<float> out(p.samples * p.outputs);
  const Status status = layer.forward(
      WeightSource{
          .data = p.weights.data(), .outputs = p.outputs, .depth = p.depth, .version = version},
      {.input = p.input.data(), .samples = p.samples, .bias = p.bias.data(), .output = out.data()},
      SerialExecutor{});
  EXPECT_TRUE(status.ok()) << (status.ok() ? "" : status.error().message);
  return out;
}

std::shared_ptr<Layer> make_layer(const std::shared_ptr<Fabric>& fabric, const Problem& p,
                                  Activation activation = Activation::kTernary) {
  auto layer = Layer::make({.identity = {.name = "layer"},
                            .outputs = p.outputs,
                            .depth = p.depth,
                            .activation = activation},
                           fabric);
  EXPECT_TRUE(layer.ok());
  return layer.value();
}

// One forward pass of both engines in lockstep, the closed form's on `threads` threads.
void expect_engines_agree(const Problem& p, const Geometry& geometry, Activation activation,
                          std::size_t threads) {
  const auto layer = make_layer(Fabric::open(Engine::kLockstep, {geometry, {}}), p, activation);
  std::vector<float> out(p.samples * p.outputs);
  const Status status = layer->forward(
      WeightSource{.data = p.weights.data(), .outputs = p.outputs, .depth = p.depth, .version = 0},
      {.input = p.input.data(), .samples = p.samples, .bias = p.bias.data(), .output = out.data()},
      ThreadedExecutor(threads));
  ASSERT_TRUE(status) << status.error().message;
}

TEST(Forward, EqualsTheReferenceAndTheSteppedEngine) {
  constexpr std::uint64_t kSeed = 20240229;
  std::mt19937_64 random(kSeed);
  const std::array<Geometry, 6> geometries{
      Geometry{},
      Geometry::make(1, 15, 15).value(),
      Geometry::make(3, 7, 31).value(),
      Geometry::make(2, 40, 64).value(),
      Geometry::make(64, 1, 16).value(),
      Geometry::make(5, 16, 100).value(),
  };
  const auto pick = [&](std::initializer_list<std::uint64_t> values) {
    return *(values.begin() +
             std::uniform_int_distribution<std::size_t>(0, values.size() - 1)(random));
  };
  for (int round = 0; round < 250; ++round) {
    const auto& geometry = geometries[static_cast<std::size_t>(round) % geometries.size()];
    const auto closed = Fabric::open(Engine::kClosedForm, {geometry, {}});
    const auto stepped = Fabric::open(Engine::kStepped, {geometry, {}});
    std::vector<std::shared_ptr<Layer>> layers;
    std::vector<Problem> problems;
    problems.reserve(2);
    for (int l = 0; l < 2; ++l) {
      problems.push_back(make_problem(random, pick({1, 7, 15, 16, 60, 61, 130}),
                                      pick({1, 14, 15, 16, 31, 64, 100, 513, 1020, 1024, 1025}),
                                      pick({1, 2, 3, 5}), pick({0, 1}) != 0 ? 0.9 : 0.1));
    }
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", round " + std::to_string(round));
    const auto activation = round % 3 == 0 ? Activation::kInt8 : Activation::kTernary;
    for (const auto& problem : problems) {
      layers.push_back(make_layer(closed, problem, activation));
      layers.push_back(make_layer(stepped, problem, activation));
    }
    for (const std::size_t l : {0U, 1U, 0U}) {
      const auto fast = run(*layers[2 * l], problems[l]);
      const auto slow = run(*layers[2 * l + 1], problems[l]);
      ASSERT_EQ(fast, slow);
      if (activation == Activation::kTernary) {
        ASSERT_EQ(fast, reference(problems[l]));
      }
    }
    expect_same_device(*closed, *stepped);
    if (HasFailure()) return;
  }
}

// Weights whose groups are full, sparse or mixed, over many passes; batches around the blocks of
// rows that threads share.
TEST(Forward, CountsSparseWeightsAsTheSteppedEngineDoes) {
  constexpr std::uint64_t kSeed = 20240301;
  std::mt19937_64 random(kSeed);
  const std::array<Geometry, 5> geometries{
      Geometry{}, Geometry::make(3, 7, 64).value(), Geometry::make(1, 1, 1024).value(),
      Geometry::make(6, 2, 40).value(), Geometry::make(2, 4, 4096).value()};
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", round " + std::to_string(round));
    const auto& geometry = geometries[static_cast<std::size_t>(round) % geometries.size()];
    const std::size_t outputs = 1 + random() % 400;
    const std::size_t depth = 1 + random() % 150;
    constexpr std::size_t kSamples[] = {1, 2, 3, 15, 16, 17, 18, 33, 50};
    Problem problem = make_problem(random, outputs, depth, kSamples[random() % 9], 0.4);
    const std::size_t lanes = geometry.lanes();
    for (std::size_t first = 0; first < outputs; first += lanes) {
      const std::size_t kind = random() % 4;  // of a group: as it is, full, nearly empty, empty
      for (std::size_t n = first; n < std::min(outputs, first + lanes); ++n) {
        for (std::size_t k = 0; k < depth; ++k) {
          float& weight = problem.weights[n * depth + k];
          if (kind == 1 && weight == 0) weight = 1;
          if (kind == 3 || (kind == 2 && random() % 16 != 0)) weight = 0;
        }
      }
    }
    const auto activation = round % 2 == 0 ? Activation::kInt8 : Activation::kTernary;
    expect_engines_agree(problem, geometry, activation, 1 + random() % 4);
    if (testing::Test::HasFailure()) return;
  }
}

// Layers in which few fields of depths are partly empty, on both sides of "nearly full": holes in a
// short last group, in a pass of its own or beside full ones, and elsewhere; depths of one chunk
// and of several, weights that stay and that are streamed.
TEST(Forward, CountsNearlyFullWeightsAsTheSteppedEngineDoes) {
  constexpr std::uint64_t kSeed = 20261123;
  std::mt19937_64 random(kSeed);
  const std::array<Geometry, 4> geometries{Geometry{}, Geometry::make(3, 7, 64).value(),
                                           Geometry::make(1, 1, 1024).value(),
                                           Geometry::make(2, 4, 4096).value()};
  struct Reached {
    int nearly_full;
    int not_nearly;
    int passes_of_several_tiles;
    int lone_groups;
    int several_chunks;
  };
  std::array<Reached, 2> reached{};  // by activation
  for (int round = 0; round < 240; ++round) {
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", round " + std::to_string(round));
    const auto& geometry = geometries[static_cast<std::size_t>(round) % geometries.size()];
    const std::size_t lanes = geometry.lanes();
    const std::size_t outputs = 1 + random() % 120;
    const std::size_t depth = 60 + random() % 400;
    constexpr std::size_t kSamples[] = {1, 2, 3, 17, 40};
    const double zeros = round % 3 == 0 ? 0.0 : 0.4;
    Problem problem = make_problem(random, outputs, depth, kSamples[random() % 5], zeros);
    for (float& weight : problem.weights) weight = weight == 0 ? 1 : weight;
    const std::size_t groups = (outputs + lanes - 1) / lanes;
    // A pass whose tiles all have holes, or groups here and there.
    const std::size_t first_group = random() % groups / geometry.tiles() * geometry.tiles();
    const bool one_pass = random() % 2 == 0;
    const std::size_t holes = 1 + random() % (2 * depth / 15);
    for (std::size_t hole = 0; hole < holes; ++hole) {
      const std::size_t group = one_pass
                                    ? std::min(groups - 1, first_group + hole % geometry.tiles())
                                : random() % 2 == 0 ? groups - 1
                                                    : random() % groups;
      const std::size_t k = random() % depth;
      for (std::size_t n = group * lanes; n < std::min(outputs, (group + 1) * lanes); ++n) {
        problem.weights[n * depth + k] = 0;
      }
    }
    const auto activation = round / 4 % 2 == 0 ? Activation::kInt8 : Activation::kTernary;

    std::vector<std::int8_t> trits;
    for (const float weight : problem.weights)
      trits.push_back(static_cast<std::int8_t>(sign(weight)));
    const BitPlaneMatrix planes = pack_bit_planes(trits, outputs, depth).value();
    const LaneStatistics statistics(planes.view(), geometry.lanes(), geometry.tiles());
    Reached& seen = reached[activation == Activation::kInt8 ? 0 : 1];
    ++(statistics.nearly_full() ? seen.nearly_full : seen.not_nearly);
    if (statistics.nearly_full()) {
      const auto several = [](const LaneBlock& block) { return block.slots > 1; };
      if (std::ranges::any_of(statistics.blocks(), several)) ++seen.passes_of_several_tiles;
      if (!statistics.lone_groups().empty()) ++seen.lone_groups;
      if (geometry.bank_depth() < depth) ++seen.several_chunks;
    }

    expect_engines_agree(problem, geometry, activation, 1 + random() % 4);
    if (testing::Test::HasFailure()) return;
  }
  for (const Reached& seen : reached) {
    EXPECT_GE(seen.nearly_full, 30);
    EXPECT_GE(seen.not_nearly, 10);
    EXPECT_GE(seen.passes_of_several_tiles, 10);
    EXPECT_GE(seen.lone_groups, 10);
    EXPECT_GE(seen.several_chunks, 5);
  }
}

// Forwards whose samples are counted in several steps, by one thread and by three, with zeros that
// stand in few of them; layers of which only some passes are full; and wide ones, whose weights'
// counts need more than 16 bits.
TEST(Forward, CountsManySamplesAsTheSteppedEngineDoes) {
  std::mt19937_64 random(20240302);
  struct Case {
    std::size_t outputs, depth, samples;
    Activation activation;
    Geometry geometry;
    std::size_t sparse_from = std::size_t{0} - 1;  // the outputs with a third of their weights
  };
  const std::vector<Case> cases{
      {10, 60, 1300, Activation::kTernary, Geometry{}},
      {10, 60, 1300, Activation::kInt8, Geometry::make(2, 4, 40).value()},
      {20, 1025, 300, Activation::kInt8, Geometry{}},
      {20, 1025, 600, Activation::kTernary, Geometry::make(2, 4, 255).value()},
      {20, 100, 700, Activation::kTernary, Geometry::make(2, 4, 255).value(), 8},
      {20, 100, 700, Activation::kInt8, Geometry::make(2, 4, 45).value(), 8},
      {70000, 16, 1, Activation::kTernary, Geometry::make(1, 15, 64).value()},
      {70000, 16, 2, Activation::kInt8, Geometry::make(1, 15, 64).value()},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(std::to_string(c.outputs) + " x " + std::to_string(c.depth) + ", " +
                 std::to_string(c.samples));
    Problem problem = make_problem(random, c.outputs, c.depth, c.samples, 0.0);
    for (float& value : problem.input) value = value < 0 ? -1.0F : 1.0F;
    if (c.activation == Activation::kInt8) {
      for (std::size_t i = 0; i < problem.input.size(); ++i) {
        problem.input[i] = static_cast<float>(random() % 255) - 127.0F;
      }
    }
    for (std::size_t i = 0; i < problem.weights.size(); ++i) {
      if (i / c.depth >= c.sparse_from && i % c.depth % 3 != 0) problem.weights[i] = 0;
    }
    problem.input[(c.samples - 1) * c.depth] = 0;
    problem.input[c.samples / 2 * c.depth + c.depth / 2] = 0;
    const auto stepped = Fabric::open(Engine::kStepped, {c.geometry, {}});
    run(*make_layer(stepped, problem, c.activation), problem);
    for (const std::size_t threads : {1U, 3U}) {
      const auto closed = Fabric::open(Engine::kClosedForm, {c.geometry, {}});
      std::vector<float> out(c.samples * c.outputs);
      const auto layer = make_layer(closed, problem, c.activation);
      ASSERT_TRUE(layer->forward(
          WeightSource{
              .data = problem.weights.data(), .outputs = c.outputs, .depth = c.depth, .version = 0},
          {.input = problem.input.data(),
           .samples = c.samples,
           .bias = problem.bias.data(),
           .output = out.data()},
          ThreadedExecutor(threads)));
      const auto fast = closed->profile().value().total;
      const auto slow = stepped->profile().value().total;
      EXPECT_EQ(fast, slow) << threads << " threads";
    }
  }
}

TEST(Forward, SeesAWeightThatChanges) {
  std::mt19937_64 random(1);
  Problem problem = make_problem(random, 20, 50, 2, 0.2);
  const auto layer = make_layer(Fabric::open(Engine::kClosedForm, {}), problem);
  EXPECT_EQ(run(*layer, problem, 1), reference(problem));
  problem.weights[1] += problem.weights[1] < 0 ? 2.0F : -2.0F;
  problem.input[1] = 1.0F;
  EXPECT_NE(run(*layer, problem, 1),
            reference(problem));  // same place and version: taken as unchanged
  EXPECT_EQ(run(*layer, problem, 2), reference(problem));
  for (float& w : problem.weights) w = -w;
  EXPECT_EQ(run(*layer, problem, 2), reference(problem));  // but not where all are others
  problem.weights[1] = -problem.weights[1];
  layer->refresh();
  EXPECT_EQ(run(*layer, problem, 2), reference(problem));
}

TEST(Forward, TrainingComparesContents) {
  std::mt19937_64 random(2);
  Problem problem = make_problem(random, 20, 50, 2, 0.2);
  const auto fabric = Fabric::open(Engine::kClosedForm, {});
  const auto layer = make_layer(fabric, problem);
  const auto train = [&] {
    std::vector<float> out(problem.samples * problem.outputs);
    EXPECT_TRUE(layer->forward(WeightSource{.data = problem.weights.data(),
                                            .outputs = 20,
                                            .depth = 50,
                                            .version = 0,
                                            .by_content = true},
                               {.input = problem.input.data(),
                                .samples = 2,
                                .bias = problem.bias.data(),
                                .output = out.data()},
                               SerialExecutor{}));
    return out;
  };
  EXPECT_EQ(train(), reference(problem));
  EXPECT_EQ(train(), reference(problem));
  EXPECT_EQ(fabric->profile().value().total.residency_hits, 1U);
  problem.weights[7] = -problem.weights[7] + 0.5F;
  EXPECT_EQ(train(), reference(problem));
  problem.weights[3] = problem.weights[3] == 0 ? 1.0F : -problem.weights[3];
  EXPECT_EQ(run(*layer, problem, 0), reference(problem));  // the first forward after training
}

TEST(Forward, DegenerateShapes) {
  std::mt19937_64 random(3);
  const auto fabric = Fabric::open(Engine::kClosedForm, {});
  const Problem none = make_problem(random, 5, 9, 0, 0);
  EXPECT_TRUE(run(*make_layer(fabric, none), none).empty());
  Problem no_depth = make_problem(random, 5, 0, 3, 0);
  const auto out = run(*make_layer(fabric, no_depth), no_depth);
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], no_depth.bias[i % 5]);
  EXPECT_EQ(fabric->profile().value().total, fabric::Counters{});
}

TEST(Forward, ErrorsLeaveTheDeviceAsItWas) {
  std::mt19937_64 random(4);
  const auto fabric = Fabric::open(Engine::kClosedForm, {});
  const Problem problem = make_problem(random, 15, 20, 1, 0);
  const auto layer = make_layer(fabric, problem);
  run(*layer, problem);
  const auto before = fabric->profile().value();
  std::vector<float> out(15);
  const auto wrong = layer->forward(
      WeightSource{.data = problem.weights.data(), .outputs = 15, .depth = 19, .version = 0},
      {.input = problem.input.data(), .samples = 1, .output = out.data()}, SerialExecutor{});
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(fabric->profile().value().total, before.total);
  ASSERT_TRUE(fabric->close().ok());
  const auto closed = layer->forward(
      WeightSource{.data = problem.weights.data(), .outputs = 15, .depth = 20, .version = 0},
      {.input = problem.input.data(), .samples = 1, .output = out.data()}, SerialExecutor{});
  ASSERT_FALSE(closed.ok());
  EXPECT_EQ(closed.error().code, ErrorCode::kClosed);
  EXPECT_FALSE(Fabric::default_fabric()->close().ok());
}

TEST(LayerRegistry, MakesWhatAnExportedProgramNames) {
  const LayerIdentity identity{
      .name = "exported",
      .fabric =
          FabricSpec{"elsewhere", Engine::kClosedForm, {Geometry::make(2, 7, 30).value(), {}}}};
  const std::string text = identity.to_text();
  auto& registry = LayerRegistry::instance();
  const LayerKey key{text};
  const auto first = registry.find_or_make(key, 3, 4);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(first.value()->fabric()->config().geometry.lanes(), 7U);
  EXPECT_EQ(registry.find_or_make(key, 3, 4).value(), first.value());
  EXPECT_FALSE(registry.find_or_make(key, 3, 5).ok());
  registry.remove(text, *first.value());
  EXPECT_TRUE(first.value()->fabric()->profile().value().layers.size() == 1);
  EXPECT_FALSE(registry.find_or_make({"nonsense"}, 3, 4).ok());
}

// Of one identity, but other numbers.
TEST(LayerRegistry, TellsLayersByWhatChangesTheirNumbers) {
  const std::string text = LayerIdentity{.name = "numbers"}.to_text();
  auto& registry = LayerRegistry::instance();
  const auto sign = registry.find_or_make({text}, 3, 4).value();
  const auto int8 =
      registry.find_or_make({text, WeightQuantizer::kSign, Activation::kInt8}, 3, 4).value();
  const auto twn = registry.find_or_make({text, WeightQuantizer::kTwn}, 3, 4).value();
  EXPECT_NE(sign, int8);
  EXPECT_NE(sign, twn);
  for (const auto& layer : {sign, int8, twn}) registry.remove(text, *layer);
}

TEST(LayerRegistry, LetsAnIdentityGoOnlyToItsOwnLayer) {
  const auto fabric = Fabric::open(Engine::kClosedForm, {});
  auto& registry = LayerRegistry::instance();
  const auto make = [&] {
    return Layer::make({.identity = {.name = "m"}, .outputs = 3, .depth = 4}, fabric).value();
  };
  const auto old = make();
  const auto taken_over = make();
  registry.add("an identity", old);
  registry.add("an identity", taken_over);
  registry.remove("an identity", *old);
  EXPECT_EQ(registry.find_or_make({"an identity"}, 3, 4).value(), taken_over);
  registry.remove("an identity", *taken_over);
  EXPECT_FALSE(registry.find_or_make({"an identity"}, 3, 4).ok());
}

TEST(Fabric, NamesOfLayersAreUnique) {
  const auto fabric = Fabric::open(Engine::kClosedForm, {});
  const auto make = [&] {
    return Layer::make({.identity = {.name = "fc"}, .outputs = 1, .depth = 1}, fabric).value();
  };
  const auto a = make();
  auto b = make();
  EXPECT_EQ(a->spec().identity.name, "fc");
  EXPECT_EQ(b->spec().identity.name, "fc-1");
  b.reset();
  EXPECT_EQ(make()->spec().identity.name, "fc-1");
}

TEST(Fabric, ManyLayersLeaveTheBytesThatTheSteppedEngineLeaves) {
  std::mt19937_64 random(5);
  const auto closed = Fabric::open(Engine::kClosedForm, {});
  const auto stepped = Fabric::open(Engine::kStepped, {});
  std::vector<Problem> problems;
  std::vector<std::shared_ptr<Layer>> layers;
  for (int l = 0; l < 70; ++l) {
    problems.push_back(make_problem(random, 5, 10, 1, 0.3));
    layers.push_back(make_layer(closed, problems.back()));
    layers.push_back(make_layer(stepped, problems.back()));
  }
  for (int round = 0; round < 2; ++round) {
    for (std::size_t l = 0; l < problems.size(); ++l) {
      ASSERT_EQ(run(*layers[2 * l], problems[l]), run(*layers[2 * l + 1], problems[l]));
    }
  }
  expect_same_device(*closed, *stepped);
}

TEST(Fabric, OpeningAndDroppingFromSeveralThreadsEnds) {
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 300; ++i) {
        const auto fabric = Fabric::open(Engine::kClosedForm, {});
        EXPECT_EQ(Fabric::find_or_open(fabric->spec()), fabric);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST(Fabric, ALayerThatReplacesAnotherTakesItsPlace) {
  const auto fabric = Fabric::open(Engine::kClosedForm, {});
  const auto first =
      Layer::make({.identity = {.name = "a"}, .outputs = 3, .depth = 4}, fabric).value();
  const auto second =
      Layer::make({.identity = {.name = "b"}, .outputs = 3, .depth = 4}, fabric, first.get())
          .value();
  ASSERT_EQ(fabric->profile().value().layers.size(), 1U);
  EXPECT_EQ(fabric->profile().value().layers[0].name, "b");
}

}  // namespace
}  // namespace tfmbs::runtime
