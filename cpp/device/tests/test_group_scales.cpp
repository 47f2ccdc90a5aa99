// Layers with group scales on the device, without any layer above it: the closed form against the
// stepped engine in every counter and byte, and sums against a plain loop.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "same_device.hpp"
#include "tfmbs/device/account.hpp"
#include "tfmbs/device/activation_counter.hpp"
#include "tfmbs/device/estimate.hpp"
#include "tfmbs/execution/workspace.hpp"
#include "tfmbs/kernels/kernels.hpp"
#include "threaded_executor.hpp"

namespace tfmbs::device {
namespace {

class TestWeights final : public WeightTrits {
 public:
  TestWeights(std::span<const std::int8_t> trits, std::size_t outputs, std::size_t depth)
      : planes_(pack_bit_planes(trits, outputs, depth).value()), serial_(next_weight_serial()) {}
  [[nodiscard]] BitPlaneView view() const noexcept { return planes_.view(); }
  [[nodiscard]] BitPlaneMatrix rows(std::size_t first, std::size_t count) const override {
    BitPlaneMatrix rows(count, planes_.trits());
    const BitPlaneView part = view().slice(first, count);
    std::copy_n(part.words, count * part.row_words(), rows.data());
    return rows;
  }
  [[nodiscard]] std::uint64_t serial() const noexcept override { return serial_; }
  [[nodiscard]] double sparsity() const noexcept override { return 0.5; }

 private:
  BitPlaneMatrix planes_;
  std::uint64_t serial_;
};

struct Problem {
  std::size_t outputs{0};
  std::size_t depth{0};
  std::uint32_t group_depth{0};
  std::uint32_t planes{1};
  std::vector<std::int8_t> weights{};

  [[nodiscard]] std::size_t groups() const { return (depth + group_depth - 1) / group_depth; }
};

struct Activations {
  std::size_t samples{0};
  std::vector<std::int8_t> values{};
};

std::int8_t random_trit(std::mt19937_64& random, double zeros) {
  if (std::uniform_real_distribution<>(0, 1)(random) < zeros) return 0;
  return random() % 2 == 0 ? std::int8_t{1} : std::int8_t{-1};
}

// Some depths are empty in all outputs, so that tiles skip them.
std::vector<std::int8_t> random_weights(std::mt19937_64& random, std::size_t outputs,
                                        std::size_t depth, double zeros, double empty_depths) {
  std::vector<bool> empty(depth);
  for (std::size_t k = 0; k < depth; ++k) {
    empty[k] = std::uniform_real_distribution<>(0, 1)(random) < empty_depths;
  }
  std::vector<std::int8_t> trits(outputs * depth);
  for (std::size_t i = 0; i < trits.size(); ++i) {
    if (!empty[i % depth]) trits[i] = random_trit(random, zeros);
  }
  return trits;
}

Activations random_activations(std::mt19937_64& random, const Problem& problem, std::size_t samples,
                               double zeros) {
  Activations made{samples, std::vector<std::int8_t>(samples * problem.depth)};
  for (auto& value : made.values) {
    value = random_trit(random, zeros);
    if (problem.planes > 1 && value != 0) value = static_cast<std::int8_t>(random() % 255 - 127);
  }
  return made;
}

// Scale groups x samples x outputs.
std::vector<std::int32_t> plain_sums(const Problem& problem, const Activations& activations) {
  std::vector<std::int32_t> sums;
  for (std::size_t g = 0; g < problem.groups(); ++g) {
    for (std::size_t m = 0; m < activations.samples; ++m) {
      for (std::size_t n = 0; n < problem.outputs; ++n) {
        std::int32_t sum = 0;
        for (std::size_t k = g * problem.group_depth;
             k < std::min<std::size_t>((g + 1) * problem.group_depth, problem.depth); ++k) {
          sum += activations.values[m * problem.depth + k] * problem.weights[n * problem.depth + k];
        }
        sums.push_back(sum);
      }
    }
  }
  return sums;
}

// Of values that have `planes` balanced ternary digits, the most significant plane first.
BitPlaneMatrix planes_of(const Activations& activations, std::size_t depth, std::uint32_t planes) {
  const std::size_t plane_values = activations.samples * depth;
  std::vector<std::int8_t> digits(planes * plane_values);
  for (std::size_t i = 0; i < plane_values; ++i) {
    int rest = activations.values[i];
    for (std::uint32_t p = planes; p-- > 0;) {
      const int digit = ((rest + 1) % 3 + 3) % 3 - 1;
      digits[p * plane_values + i] = static_cast<std::int8_t>(digit);
      rest = (rest - digit) / 3;
    }
  }
  return pack_bit_planes(digits, planes * activations.samples, depth).value();
}

// A device with the problem's layer on it.
class OneLayer {
 public:
  OneLayer(Engine engine, const Geometry& geometry, const Problem& problem, std::uint64_t tile_mask,
           std::uint32_t blocked_depths)
      : problem_(problem),
        fabric_(Fabric::open(engine, {geometry, {}})),
        trits_(std::make_shared<TestWeights>(problem.weights, problem.outputs, problem.depth)) {
    if (blocked_depths != 0) {
      blocker_ = Account::enter({.name = "blocker",
                                 .outputs = std::uint64_t{geometry.lanes()} * geometry.tiles(),
                                 .depth = blocked_depths,
                                 .weight_address = geometry.bank_a_base(0)},
                                fabric_)
                     .value();
    }
    account_ = Account::enter({.name = "layer",
                               .outputs = problem.outputs,
                               .depth = problem.depth,
                               .planes = problem.planes,
                               .tile_mask = tile_mask,
                               .group_depth = problem.group_depth},
                              fabric_)
                   .value();
    if (account_->wants_statistics()) statistics_.emplace(account_->statistics_of(trits_->view()));
  }

  [[nodiscard]] Fabric& fabric() const { return *fabric_; }
  [[nodiscard]] const LaneStatistics& statistics() const { return *statistics_; }

  // Gives a driver's own sums. `products`: what it compares with.
  Result<std::vector<std::int32_t>> forward(const Activations& activations,
                                            std::span<const std::int32_t> products,
                                            const execution::Executor& executor) {
    execution::Scratch scratch;
    Fabric::Ticket ticket;
    if (auto s = account_->admit({trits_, statistics_ ? &*statistics_ : nullptr},
                                 activations.samples, scratch, ticket);
        !s) {
      return std::move(s).error();
    }
    const ActivationNeeds needs = ticket.needs();
    const BitPlaneMatrix planes = planes_of(activations, problem_.depth, problem_.planes);
    const bool int8 = problem_.planes > 1;
    std::optional<ActivationCounter> counter;
    if (needs.counts) {
      counter.emplace(needs, activations.samples, problem_.depth, scratch);
      const auto count = [&](std::size_t begin, std::size_t end) {
        counter->count(begin, end, 3, [&](std::size_t row, std::size_t) {
          return int8 ? ActivationRows{.values = activations.values.data() + row * problem_.depth}
                      : ActivationRows{.planes = planes.view().row(row)};
        });
      };
      // By one thread, or as if by two.
      const std::size_t half = executor.threads() > 1 ? activations.samples / 2 : 0;
      if (half != 0) count(0, half);
      count(half, activations.samples);
    }
    std::vector<std::int32_t> sums;
    LayerInput input{
        .activations = {.planes = {.words = needs.planes || !int8 ? planes.view().words : nullptr,
                                   .samples = activations.samples,
                                   .depth = problem_.depth,
                                   .planes = problem_.planes},
                        .values = int8 ? activations.values.data() : nullptr},
        .counts = counter ? &counter->counts() : nullptr};
    if (fabric_->products() == Products::kBoth) input.products = products;
    if (fabric_->products() == Products::kDriver) {
      sums.resize(problem_.groups() * activations.samples * problem_.outputs);
      input.sums = sums;
    }
    if (auto s = ticket.run(input, executor); !s) return std::move(s).error();
    ticket.commit();
    return sums;
  }

 private:
  const Problem& problem_;
  std::shared_ptr<Fabric> fabric_;
  std::shared_ptr<TestWeights> trits_;
  std::unique_ptr<Account> blocker_;
  std::unique_ptr<Account> account_;
  std::optional<LaneStatistics> statistics_;
};

placement::Placement placement_of(const OneLayer& layer, const Geometry& geometry,
                                  const Problem& problem, std::uint32_t blocked_depths) {
  const LayerProfile profile = layer.fabric().profile().value().layers.back();
  const std::uint32_t free = (geometry.bank_depth() - blocked_depths) * geometry.words_per_depth();
  if (!profile.resident) return {profile.tile_mask, 0, free, true};
  return {profile.tile_mask, 0,
          static_cast<std::uint32_t>(placement::resident_words(geometry, problem.outputs,
                                                               problem.depth, profile.tile_mask)),
          false};
}

struct Reached {
  int resident{0};
  int ping_pong{0};
  int single_slot{0};
  int several_chunks_a_group{0};
  int unlike_chunks{0};  // that the kernels cannot count at once
  int nearly_full{0};
  int counted_by_lane{0};
  int all_occupied{0};
  int tail_group{0};
};

template <typename T>
T pick(std::mt19937_64& random, std::initializer_list<T> from) {
  return from.begin()[random() % from.size()];
}

TEST(GroupScales, ClosedFormEqualsSteppedEngine) {
  std::mt19937_64 random(20240711);
  const execution::ThreadedExecutor threads(3);
  const execution::SerialExecutor serial;
  std::array<Reached, 2> reached;
  for (int round = 0; round < 400; ++round) {
    const Geometry geometry =
        Geometry::make(pick<std::uint32_t>(random, {1, 2, 3, 4}),
                       pick<std::uint32_t>(random, {1, 4, 15, 20}),
                       pick<std::uint32_t>(random, {15, 30, 40, 64, 75, 100, 255, 256, 600, 1024}))
            .value();
    Problem problem{.outputs = 1 + random() % (geometry.lanes() * geometry.tiles() * 3),
                    .depth = 1 + random() % 700,
                    .group_depth = pick<std::uint32_t>(random, {32, 64, 128, 256, 20, 45}),
                    .planes = round % 2 == 0 ? 1U : std::uint32_t{kernels::kInt8Planes}};
    if (random() % 4 == 0) problem.depth = std::size_t{problem.group_depth} * (1 + random() % 5);
    problem.weights =
        random_weights(random, problem.outputs, problem.depth, pick(random, {0.0, 0.05, 0.3, 0.8}),
                       pick(random, {0.0, 0.0, 0.004, 0.3}));
    const std::uint64_t tile_mask =
        random() % 3 == 0 ? 1 + random() % geometry.all_tiles() : std::uint64_t{0};
    const std::uint32_t blocked =
        geometry.bank_depth() >= 40 && random() % 3 == 0 ? geometry.bank_depth() * 3 / 5 : 0;
    SCOPED_TRACE("round " + std::to_string(round) + ": " + std::to_string(problem.outputs) + " x " +
                 std::to_string(problem.depth) + ", groups of " +
                 std::to_string(problem.group_depth) + ", " + std::to_string(problem.planes) +
                 " planes, " + std::to_string(geometry.tiles()) + " x " +
                 std::to_string(geometry.lanes()) + " x " + std::to_string(geometry.bank_depth()) +
                 ", mask " + std::to_string(tile_mask) + ", blocked " + std::to_string(blocked));

    OneLayer closed(Engine::kClosedForm, geometry, problem, tile_mask, blocked);
    OneLayer stepped(Engine::kStepped, geometry, problem, tile_mask, blocked);
    OneLayer lockstep(Engine::kLockstep, geometry, problem, tile_mask, blocked);
    for (int pass = 0; pass < 2; ++pass) {
      const Activations activations = random_activations(random, problem, 1 + random() % 5,
                                                         pick(random, {0.0, 0.1, 0.5, 0.95}));
      const std::vector<std::int32_t> sums = plain_sums(problem, activations);
      const execution::Executor& executor =
          random() % 2 == 0 ? static_cast<const execution::Executor&>(threads) : serial;
      ASSERT_TRUE(closed.forward(activations, {}, executor));
      const auto stepped_sums = stepped.forward(activations, {}, executor);
      ASSERT_TRUE(stepped_sums) << stepped_sums.error().message;
      EXPECT_EQ(stepped_sums.value(), sums);
      expect_same_device(closed.fabric(), stepped.fabric());
      if (round % 8 < 2) {
        const auto checked = lockstep.forward(activations, sums, executor);
        EXPECT_TRUE(checked) << checked.error().message;
      }
      if (HasFailure()) return;
    }

    Reached& seen = reached[problem.planes > 1 ? 1 : 0];
    const placement::Schedule schedule(
        geometry, {problem.outputs, problem.depth, problem.planes, problem.group_depth},
        placement_of(closed, geometry, problem, blocked));
    const bool streamed = schedule.placement().streamed;
    ++(!streamed ? seen.resident : schedule.ping_pong() ? seen.ping_pong : seen.single_slot);
    const ChunkFields chunks(DepthFields(problem.depth, problem.group_depth),
                             schedule.chunk_depth());
    EXPECT_EQ(chunks.count(), schedule.chunks());
    const LaneStatistics& statistics = closed.statistics();
    const bool by_lane = !statistics.all_occupied() && !statistics.nearly_full();
    if (problem.group_depth > schedule.chunk_depth()) ++seen.several_chunks_a_group;
    if (!chunks.uniform() && by_lane) ++seen.unlike_chunks;
    if (schedule.scale_groups() > 1) {
      if (statistics.nearly_full()) ++seen.nearly_full;
      if (by_lane) ++seen.counted_by_lane;
      if (statistics.all_occupied()) ++seen.all_occupied;
      if (problem.depth % problem.group_depth != 0) ++seen.tail_group;
    }
  }
  for (const Reached& seen : reached) {
    EXPECT_GE(seen.resident, 10);
    EXPECT_GE(seen.ping_pong, 10);
    EXPECT_GE(seen.single_slot, 10);
    EXPECT_GE(seen.several_chunks_a_group, 10);
    EXPECT_GE(seen.unlike_chunks, 5);
    EXPECT_GE(seen.nearly_full, 5);
    EXPECT_GE(seen.counted_by_lane, 10);
    EXPECT_GE(seen.all_occupied, 5);
    EXPECT_GE(seen.tail_group, 10);
  }
}

// The traffic by hand: 100 depths in groups of 32 through a window of 15 depths. Chunks of 15, 15
// and 2 depths, three times, and one of 4.
TEST(GroupScales, PartialSumsComeBackOnlyInsideAGroup) {
  const Geometry geometry = Geometry::make(1, 15, 30).value();
  std::mt19937_64 random(1);
  Problem problem{.outputs = 15, .depth = 100, .group_depth = 32};
  problem.weights = random_weights(random, 15, 100, 0, 0);
  const Activations activations = random_activations(random, problem, 2, 0);
  OneLayer grouped(Engine::kClosedForm, geometry, problem, 0, 15);
  ASSERT_TRUE(grouped.forward(activations, {}, execution::SerialExecutor{}));
  const std::uint64_t sums = 15 * 2;
  const std::uint64_t chunks = 3 * 3 + 1;
  const fabric::Counters counts = grouped.fabric().profile().value().total;
  EXPECT_EQ(counts.mem_writes, chunks * sums);
  EXPECT_EQ(counts.broadcasts, chunks * 2);
  EXPECT_EQ(counts.mem_reads, 100 + chunks * 2 + (chunks - 4) * sums);
  EXPECT_EQ(counts.compute_cycles, chunks * 2 * 7 + 2 * 100);
}

// One group, or none, is the same device.
TEST(GroupScales, AGroupOfAllDepthsIsNone) {
  const Geometry geometry = Geometry::make(2, 15, 64).value();
  std::mt19937_64 random(2);
  Problem problem{.outputs = 70, .depth = 100, .group_depth = 128};
  problem.weights = random_weights(random, 70, 100, 0.5, 0.1);
  const Activations activations = random_activations(random, problem, 3, 0.5);
  OneLayer grouped(Engine::kClosedForm, geometry, problem, 0, 0);
  ASSERT_TRUE(grouped.forward(activations, {}, execution::SerialExecutor{}));
  Problem plain = problem;
  plain.group_depth = 0;
  OneLayer none(Engine::kClosedForm, geometry, plain, 0, 0);
  ASSERT_TRUE(none.forward(activations, {}, execution::SerialExecutor{}));
  expect_same_device(grouped.fabric(), none.fabric());
}

TEST(GroupScales, LockstepNamesTheScaleGroup) {
  const Geometry geometry = Geometry::make(2, 15, 64).value();
  std::mt19937_64 random(3);
  Problem problem{.outputs = 40, .depth = 100, .group_depth = 32};
  problem.weights = random_weights(random, 40, 100, 0.5, 0);
  const Activations activations = random_activations(random, problem, 3, 0.5);
  OneLayer layer(Engine::kLockstep, geometry, problem, 0, 0);
  std::vector<std::int32_t> sums = plain_sums(problem, activations);
  ++sums[(2 * 3 + 1) * 40 + 17];  // group 2, sample 1, output 17
  const auto result = layer.forward(activations, sums, execution::SerialExecutor{});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kMismatch);
  EXPECT_NE(result.error().message.find("sample 1, scale group 2, output 17"), std::string::npos)
      << result.error().message;
}

// Every depth costs the same where nothing is zero, so the estimate is exact.
TEST(GroupScales, EstimateEqualsTheCounters) {
  std::mt19937_64 random(4);
  for (const std::uint32_t bank_depth : {30U, 64U, 256U, 1024U}) {
    for (const std::uint32_t group_depth : {32U, 64U, 128U}) {
      const Geometry geometry = Geometry::make(2, 15, bank_depth).value();
      Problem problem{.outputs = 70, .depth = 300, .group_depth = group_depth};
      problem.weights = random_weights(random, 70, 300, 0, 0);
      const Activations activations = random_activations(random, problem, 3, 0);
      OneLayer layer(Engine::kClosedForm, geometry, problem, 0, 0);
      ASSERT_TRUE(layer.forward(activations, {}, execution::SerialExecutor{}));
      const fabric::Counters counts = layer.fabric().profile().value().total;
      ForwardQuery query{.geometry = geometry,
                         .shape = {70, 300, 1, group_depth},
                         .placement = placement_of(layer, geometry, problem, 0),
                         .samples = 3};
      const placement::Schedule schedule(geometry, query.shape, query.placement);
      const auto jobs = static_cast<double>(schedule.passes() * schedule.chunks() * 3);
      query.cycles_per_job = static_cast<double>(counts.compute_cycles) / jobs;
      const auto estimate = estimate_forward(query);
      ASSERT_TRUE(estimate) << estimate.error().message;
      EXPECT_EQ(estimate.value().cycles, counts.cycles);
      EXPECT_EQ(estimate.value().mem_reads, counts.mem_reads);
      EXPECT_EQ(estimate.value().mem_writes, counts.mem_writes);
      EXPECT_EQ(estimate.value().dma_cycles, counts.dma_cycles);
    }
  }
}

}  // namespace
}  // namespace tfmbs::device
