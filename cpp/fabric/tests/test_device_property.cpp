// Random tasks on random geometries, against naive products and the closed form of docs/fabric.md
// computed from trits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "support.hpp"
#include "tfmbs/fabric/device.hpp"

namespace tfmbs::fabric {
namespace {

constexpr std::uint64_t kTiles[] = {1, 3, 64};
constexpr std::uint64_t kLanes[] = {1, 7, 15, 16, 40};
constexpr std::uint64_t kDepths[] = {15, 31, 1024};

// One pass of random weights and activations, run and predicted.
void check_random_pass(std::uint64_t seed) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto pick = [&](std::uint64_t low, std::uint64_t high) {
    return std::uniform_int_distribution<std::uint64_t>(low, high)(random);
  };
  const std::uint32_t tiles = static_cast<std::uint32_t>(kTiles[pick(0, 2)]);
  const Geometry g = Geometry::make(tiles, kLanes[pick(0, 4)], kDepths[pick(0, 2)]).value();
  SCOPED_TRACE(std::to_string(g.tiles()) + " x " + std::to_string(g.lanes()) + " x " +
               std::to_string(g.bank_depth()));
  Device device(FabricConfig{g, {}});

  TaskDescriptor task;
  // Six planes need 6 * ceil(depth / 15) words of Bank B.
  task.planes = pick(0, 1) == 0 ? 1 : 6;
  task.depth = static_cast<std::uint32_t>(pick(1, std::min(g.bank_depth(), 200U)));
  task.lanes = static_cast<std::uint32_t>(pick(1, g.lanes()));
  task.tile_mask = std::max<std::uint64_t>(1, random() & random() & g.all_tiles());
  task.accumulate = pick(0, 1) != 0;
  task.zero_skip = pick(0, 3) != 0;
  const std::size_t depth = task.depth;
  const std::size_t activation_words = task.planes * pt5_words(depth);
  ASSERT_LE(activation_words, g.bank_b_words());
  const std::size_t first_weight = pick(0, (g.bank_depth() - depth) * g.words_per_depth());
  const std::size_t first_activation = pick(0, g.bank_b_words() - activation_words);
  task.weight_base = 4 * first_weight;
  task.activation_base = 4 * first_activation;
  std::vector<bool> runs(task.lanes, true);
  if (pick(0, 2) == 0) {
    task.lane_mask.resize((task.lanes + 63) / 64);
    for (std::size_t lane = 0; lane < task.lanes; ++lane) {
      runs[lane] = lane == 0 || pick(0, 1) != 0;
      task.lane_mask[lane / 64] |= std::uint64_t{runs[lane]} << (lane % 64);
    }
  }
  const auto running = static_cast<std::uint64_t>(std::count(runs.begin(), runs.end(), true));

  // Activations: trits by plane; their value is the Horner sum.
  const double activation_sparsity = static_cast<double>(pick(0, 10)) / 10;
  std::vector<Trits> planes;
  Words activations;
  for (std::uint32_t p = 0; p < task.planes; ++p) {
    planes.push_back(random_trits(depth, activation_sparsity, random));
    const Words words = words_of_trits(planes.back());
    activations.insert(activations.end(), words.begin(), words.end());
  }
  ASSERT_TRUE(device.load(g.broadcast_base() + task.activation_base, activations).ok());

  // Weights of every lane of the tile, those beyond task.lanes included; some depths empty.
  const double weight_sparsity = static_cast<double>(pick(0, 10)) / 10;
  std::vector<Trits> weights(g.tiles());
  for (std::uint32_t t = 0; t < g.tiles(); ++t) {
    weights[t] = random_trits(depth * g.lanes(), weight_sparsity, random);
    for (std::size_t k = 0; k < depth; ++k) {
      if (pick(0, 4) == 0) {
        std::fill_n(weights[t].begin() + static_cast<std::ptrdiff_t>(k * g.lanes()), g.lanes(),
                    std::int8_t{0});
      }
    }
    const Words words = lane_major(weights[t], g.lanes(), g.words_per_depth());
    ASSERT_TRUE(device.load(g.bank_a_base(t) + task.weight_base, words).ok());
    Words results(g.lanes());
    for (auto& result : results) {
      result = static_cast<std::uint32_t>(pick(0, 3) == 0 ? 0x7FFFFFF0 : random());
    }
    ASSERT_TRUE(device.load(g.results_base(t), results).ok());
  }
  std::vector<std::vector<std::int32_t>> before;
  before.reserve(g.tiles());
  for (std::uint32_t t = 0; t < g.tiles(); ++t) {
    before.emplace_back(device.results(t).begin(), device.results(t).end());
  }
  device.reset_counters();
  ASSERT_TRUE(device.run(task).ok());

  const std::size_t words_a_step = g.words_per_depth();
  const auto weight = [&](std::uint32_t t, std::size_t k, std::size_t lane) {
    return weights[t][k * g.lanes() + lane];
  };
  Counters expected;
  std::vector<TileCounters> tile_counts(g.tiles());
  std::uint64_t slowest = 0;
  for (std::uint32_t t = 0; t < g.tiles(); ++t) {
    if ((task.tile_mask >> t & 1) == 0) {
      EXPECT_TRUE(std::equal(before[t].begin(), before[t].end(), device.results(t).begin()));
      continue;
    }
    TileCounters& counts = tile_counts[t];
    std::uint64_t steps = 0;
    std::uint64_t cycles = 0;
    for (const Trits& plane : planes) {
      for (std::size_t j = 0; j < depth; j += 15) {
        const std::size_t end = std::min(depth, j + 15);
        std::uint64_t in_mask = 0;
        for (std::size_t k = j; k < end; ++k) {
          bool occupied = false;
          for (std::size_t l = 0; l < g.lanes(); ++l) {
            occupied |= weight(t, k, l) != 0;
          }
          in_mask += (plane[k] != 0 && occupied) || !task.zero_skip ? 1U : 0U;
          for (std::size_t l = 0; l < task.lanes; ++l) {
            if (runs[l] && (!task.zero_skip || (plane[k] != 0 && weight(t, k, l) != 0))) {
              ++counts.active_ops;
            }
          }
        }
        steps += in_mask;
        cycles += std::max<std::uint64_t>(1, in_mask);
      }
    }
    const std::uint64_t all = task.planes * depth;
    counts.compute_cycles = kStartCycles + cycles + kDrainCycles;
    counts.zero_skips = running * all - counts.active_ops;
    counts.sram_reads = activation_words + steps * words_a_step;
    counts.sram_reads_saved = (all - steps) * words_a_step;
    slowest = std::max(slowest, counts.compute_cycles);

    for (std::size_t l = 0; l < g.lanes(); ++l) {
      std::int64_t sum = 0;
      for (const Trits& plane : planes) {
        sum *= 3;
        for (std::size_t k = 0; k < depth; ++k) {
          sum += std::int64_t{plane[k]} * weight(t, k, l);
        }
      }
      if (l >= task.lanes || !runs[l]) {
        EXPECT_EQ(device.results(t)[l], before[t][l]);
        continue;
      }
      sum += task.accumulate ? before[t][l] : 0;
      const auto wrapped = static_cast<std::int32_t>(static_cast<std::uint64_t>(sum));
      EXPECT_EQ(device.results(t)[l], wrapped) << "tile " << t << " lane " << l;
      EXPECT_EQ(device.overflow(t)[l] != 0, wrapped != sum);
      counts.overflow_flags += wrapped != sum ? 1U : 0U;
    }
  }
  for (std::uint32_t t = 0; t < g.tiles(); ++t) {
    TileCounters& counts = tile_counts[t];
    if (counts.compute_cycles != 0) {
      counts.stall_cycles = slowest - counts.compute_cycles;
    }
    for (const TileCounterField& field : kTileCounterFields) {
      EXPECT_EQ(device.tile_counters()[t].*field.member, counts.*field.member)
          << field.name << " of tile " << t;
    }
    expected.active_ops += counts.active_ops;
    expected.zero_skips += counts.zero_skips;
    expected.sram_reads += counts.sram_reads;
    expected.sram_reads_saved += counts.sram_reads_saved;
    expected.overflow_flags += counts.overflow_flags;
  }
  expected.cycles = expected.compute_cycles = slowest;
  expected.dense_cycles = kStartCycles + task.planes * depth + kDrainCycles;
  for (const CounterField& field : kCounterFields) {
    EXPECT_EQ(device.counters().*field.member, expected.*field.member) << field.name;
  }
}

TEST(DeviceProperty, RandomPasses) {
  for (std::uint64_t seed = 1; seed <= 600; ++seed) {
    check_random_pass(seed);
    if (::testing::Test::HasFailure()) {
      break;  // the first seed that fails says enough
    }
  }
}

// Zero-skip changes time and counts, never a result.
TEST(DeviceProperty, ZeroSkipGivesTheDenseResults) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    Device device{FabricConfig{}};
    ASSERT_TRUE(device.load(0x1000, words_of_trits(random_trits(15 * 1024, 0.6, random))).ok());
    ASSERT_TRUE(device.load(0x9000, words_of_trits(random_trits(15 * 1024, 0.6, random))).ok());
    TaskDescriptor task{.depth = 1000, .lanes = 15};
    ASSERT_TRUE(device.run(task).ok());
    const std::vector<std::int32_t> skipped(device.results(0).begin(), device.results(0).end());
    task.zero_skip = false;
    ASSERT_TRUE(device.run(task).ok());
    EXPECT_TRUE(std::equal(skipped.begin(), skipped.end(), device.results(0).begin()));
  }
}

}  // namespace
}  // namespace tfmbs::fabric
