// Cases computed by hand from docs/fabric.md.
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "support.hpp"
#include "tfmbs/fabric/device.hpp"

namespace tfmbs::fabric {
namespace {

constexpr std::int32_t kMax = std::numeric_limits<std::int32_t>::max();
constexpr std::int32_t kMin = std::numeric_limits<std::int32_t>::min();

// A device whose counters start after the loading.
struct Loaded {
  explicit Loaded(const Geometry& geometry = {}) : device(FabricConfig{geometry, {}}) {}

  void weights(std::uint32_t tile, const Trits& trits, std::size_t lanes) {
    const Geometry& g = device.geometry();
    ASSERT_TRUE(
        device.load(g.bank_a_base(tile), lane_major(trits, lanes, g.words_per_depth())).ok());
    device.reset_counters();
  }
  void activations(const Trits& trits) {
    ASSERT_TRUE(device.load(device.geometry().broadcast_base(), words_of_trits(trits)).ok());
    device.reset_counters();
  }

  Device device;
};

// Three depths, two lanes: lane 0 has + + +, lane 1 has - 0 0; activations + 0 -.
Loaded tiny() {
  Loaded machine;
  machine.weights(0, {1, -1, 1, 0, 1, 0}, 2);
  machine.activations({1, 0, -1});
  return machine;
}

TEST(Engine, TinyTaskByHand) {
  Loaded machine = tiny();
  ASSERT_TRUE(machine.device.run({.depth = 3, .lanes = 2}).ok());
  EXPECT_EQ(machine.device.results(0)[0], 0);   // 1 * 1 + 1 * -1
  EXPECT_EQ(machine.device.results(0)[1], -1);  // -1 * 1
  // Activations are not zero at depths 0 and 2, both occupied: two steps.
  const Counters expected{
      .cycles = 4 + 2 + 3,
      .compute_cycles = 9,
      .dense_cycles = 4 + 3 + 3,
      .active_ops = 3,       // both lanes at depth 0, lane 0 at depth 2
      .zero_skips = 3,       // of 2 lanes * 3 depths
      .sram_reads = 1 + 2,   // the activation word, a weight word a step
      .sram_reads_saved = 1  // depth 1
  };
  EXPECT_EQ(machine.device.counters(), expected);
  const TileCounters tile{.compute_cycles = 9,
                          .active_ops = 3,
                          .zero_skips = 3,
                          .sram_reads = 3,
                          .sram_reads_saved = 1};
  EXPECT_EQ(machine.device.tile_counters()[0], tile);
  EXPECT_EQ(machine.device.tile_counters()[1], TileCounters{});
}

TEST(Engine, TheSameTaskDense) {
  Loaded machine = tiny();
  ASSERT_TRUE(machine.device.run({.depth = 3, .lanes = 2, .zero_skip = false}).ok());
  EXPECT_EQ(machine.device.results(0)[0], 0);
  EXPECT_EQ(machine.device.results(0)[1], -1);
  const Counters expected{
      .cycles = 10, .compute_cycles = 10, .dense_cycles = 10, .active_ops = 6, .sram_reads = 1 + 3};
  EXPECT_EQ(machine.device.counters(), expected);
}

TEST(Engine, AnUnoccupiedDepthIsSkipped) {
  Loaded machine;
  // Every activation is +1; of 17 depths, 3, 4 and 16 have no weight in any lane.
  Trits weights(17, 1);
  weights[3] = weights[4] = weights[16] = 0;
  machine.weights(0, weights, 1);
  machine.activations(Trits(17, 1));
  ASSERT_TRUE(machine.device.run({.depth = 17, .lanes = 1}).ok());
  EXPECT_EQ(machine.device.results(0)[0], 14);
  // Word 0: 13 of 15. Word 1 (depths 15 and 16): 1 of 2.
  EXPECT_EQ(machine.device.counters().cycles, 4U + 13 + 1 + 3);
  EXPECT_EQ(machine.device.counters().dense_cycles, 4U + 17 + 3);
  EXPECT_EQ(machine.device.counters().sram_reads, 2U + 14);
  EXPECT_EQ(machine.device.counters().sram_reads_saved, 3U);
}

TEST(Engine, AnEmptyWordStillCostsACycle) {
  Loaded machine;
  machine.weights(0, Trits(32, 1), 1);
  machine.activations(Trits(32, 0));
  ASSERT_TRUE(machine.device.run({.depth = 32, .lanes = 1}).ok());
  EXPECT_EQ(machine.device.counters().cycles, 4U + 3 + 3);  // three words, no step
  EXPECT_EQ(machine.device.counters().sram_reads, 3U);
  EXPECT_EQ(machine.device.counters().active_ops, 0U);
  EXPECT_EQ(machine.device.counters().zero_skips, 32U);
  // Six planes of two depths each: six words, no step; dense 12 steps.
  machine.device.reset_counters();
  ASSERT_TRUE(machine.device.run({.depth = 2, .lanes = 1, .planes = 6}).ok());
  EXPECT_EQ(machine.device.counters().cycles, 4U + 6 + 3);
  EXPECT_EQ(machine.device.counters().dense_cycles, 4U + 12 + 3);
  EXPECT_EQ(machine.device.counters().zero_skips, 12U);
}

TEST(Engine, OccupancyFollowsWhatIsStored) {
  Loaded machine;
  machine.weights(0, Trits(15, 1), 1);
  machine.activations(Trits(15, 1));
  machine.weights(0, Trits(15, 0), 1);  // and away again
  ASSERT_TRUE(machine.device.run({.depth = 15, .lanes = 1}).ok());
  EXPECT_EQ(machine.device.counters().cycles, 4U + 1 + 3);
  EXPECT_EQ(machine.device.results(0)[0], 0);
}

TEST(Engine, FewerLanesReadWholeDepthsAllTheSame) {
  // 40 lanes are 3 words a depth, read and looked at together: the weight of lane 35 occupies its
  // depth for a task of 16 lanes too, but is not multiplied.
  Loaded machine(Geometry::make(1, 40, 31).value());
  Trits weights(3 * 40, 0);
  weights[35] = 1;       // depth 0: lane 35 only
  weights[40 + 15] = 1;  // depth 1: lane 15
  machine.weights(0, weights, 40);
  machine.activations({1, 1, 1});
  ASSERT_TRUE(machine.device.run({.depth = 3, .lanes = 16}).ok());
  EXPECT_EQ(machine.device.results(0)[15], 1);
  EXPECT_EQ(machine.device.results(0)[35], 0);
  EXPECT_EQ(machine.device.counters().cycles, 4U + 2 + 3);
  EXPECT_EQ(machine.device.counters().sram_reads, 1U + 2 * 3);
  EXPECT_EQ(machine.device.counters().sram_reads_saved, 3U);
  EXPECT_EQ(machine.device.counters().active_ops, 1U);
  EXPECT_EQ(machine.device.counters().zero_skips, 3U * 16 - 1);
}

TEST(Engine, Int8IsExactForEveryValue) {
  std::mt19937_64 random(11);
  const Geometry geometry = Geometry::make(1, 15, 1024).value();
  constexpr std::size_t kDepth = 255;
  constexpr std::size_t kWordsAPlane = 17;
  Loaded machine(geometry);
  const Trits weights = random_trits(kDepth * 15, 0.3, random);
  machine.weights(0, weights, 15);
  Words planes(6 * kWordsAPlane);
  for (std::size_t p = 0; p < 6; ++p) {
    Trits plane(kDepth);
    for (std::size_t k = 0; k < kDepth; ++k) {
      plane[k] = balanced_trits(static_cast<int>(k) - 127)[p];
    }
    const Words words = words_of_trits(plane);
    std::copy(words.begin(), words.end(),
              planes.begin() + static_cast<std::ptrdiff_t>(p * kWordsAPlane));
  }
  ASSERT_TRUE(machine.device.load(geometry.broadcast_base(), planes).ok());
  for (const bool zero_skip : {true, false}) {
    ASSERT_TRUE(
        machine.device.run({.depth = kDepth, .lanes = 15, .planes = 6, .zero_skip = zero_skip})
            .ok());
    for (std::size_t lane = 0; lane < 15; ++lane) {
      int expected = 0;
      for (std::size_t k = 0; k < kDepth; ++k) {
        expected += (static_cast<int>(k) - 127) * weights[k * 15 + lane];
      }
      EXPECT_EQ(machine.device.results(0)[lane], expected) << "lane " << lane;
    }
  }
  // Each value alone, against a weight of +1 and one of -1.
  machine.weights(0, {1, -1}, 2);
  for (int value = -127; value <= 127; ++value) {
    const auto trits = balanced_trits(value);
    Words words;
    for (const std::int8_t trit : trits) {
      words.push_back(trit_digit(trit));
    }
    ASSERT_TRUE(machine.device.load(geometry.bank_b_base(0), words).ok());
    ASSERT_TRUE(machine.device.run({.depth = 1, .lanes = 2, .planes = 6}).ok());
    EXPECT_EQ(machine.device.results(0)[0], value);
    EXPECT_EQ(machine.device.results(0)[1], -value);
  }
}

TEST(Engine, TheLargestPassDoesNotOverflow) {
  // 2^22 depths of 6 planes would need 6 * 2^22 / 15 words of Bank B, more than it has for one
  // plane's depth; the deepest int8 pass that fits still ends exactly.
  const Geometry geometry = Geometry::make(1, 1, 150'000).value();
  Loaded machine(geometry);
  constexpr std::uint32_t kDepth = 150'000;
  machine.weights(0, Trits(kDepth, 1), 1);
  Words planes(6 * pt5_words(kDepth), words_of_trits(Trits(15, 1))[0]);
  ASSERT_TRUE(machine.device.load(geometry.broadcast_base(), planes).ok());
  ASSERT_TRUE(machine.device.run({.depth = kDepth, .lanes = 1, .planes = 6}).ok());
  EXPECT_EQ(machine.device.results(0)[0], 364 * 150'000);
  EXPECT_EQ(machine.device.counters().overflow_flags, 0U);
}

TEST(Commit, AccumulateWrapsAndFlags) {
  Loaded machine;
  Device& device = machine.device;
  machine.weights(1, {1, -1, 1}, 3);  // one depth, three lanes
  machine.activations({1});
  const Words before{static_cast<std::uint32_t>(kMax), static_cast<std::uint32_t>(kMin), 41};
  ASSERT_TRUE(device.load(device.geometry().results_base(1), before).ok());
  const TaskDescriptor task{.depth = 1, .lanes = 3, .tile_mask = 2, .accumulate = true};
  ASSERT_TRUE(device.run(task).ok());
  EXPECT_EQ(device.results(1)[0], kMin);
  EXPECT_EQ(device.results(1)[1], kMax);
  EXPECT_EQ(device.results(1)[2], 42);
  EXPECT_EQ(device.overflow(1)[0], 1);
  EXPECT_EQ(device.overflow(1)[1], 1);
  EXPECT_EQ(device.overflow(1)[2], 0);
  EXPECT_EQ(device.overflow(0)[0], 0);
  EXPECT_EQ(device.counters().overflow_flags, 2U);
  EXPECT_EQ(device.tile_counters()[1].overflow_flags, 2U);

  // The flag is sticky, the count is a commit at a time.
  ASSERT_TRUE(device.run(task).ok());
  EXPECT_EQ(device.results(1)[0], kMin + 1);
  EXPECT_EQ(device.overflow(1)[0], 1);
  EXPECT_EQ(device.counters().overflow_flags, 2U);
  device.reset_counters();
  EXPECT_EQ(device.overflow(1)[0], 0);
  EXPECT_EQ(device.results(1)[0], kMin + 1);

  // Without the hint the registers are written, whatever they held.
  TaskDescriptor write = task;
  write.accumulate = false;
  ASSERT_TRUE(device.run(write).ok());
  EXPECT_EQ(device.results(1)[0], 1);
  EXPECT_EQ(device.results(1)[1], -1);
}

TEST(Commit, MaskedLanesKeepTheirResults) {
  Loaded machine(Geometry::make(2, 70, 31).value());
  Device& device = machine.device;
  machine.weights(0, Trits(70, 1), 70);
  machine.activations({1});
  ASSERT_TRUE(device.load(0x100, Words(70, 1000)).ok());
  device.reset_counters();
  // Lanes 1, 64 and 69 of the first 70.
  const TaskDescriptor task{.depth = 1, .lanes = 70, .lane_mask = {2, 1 | 1 << 5}};
  ASSERT_TRUE(device.run(task).ok());
  for (std::size_t lane = 0; lane < 70; ++lane) {
    EXPECT_EQ(device.results(0)[lane], lane == 1 || lane == 64 || lane == 69 ? 1 : 1000);
  }
  EXPECT_EQ(device.counters().active_ops, 3U);
  EXPECT_EQ(device.counters().zero_skips, 0U);
  EXPECT_EQ(device.counters().sram_reads, 1U + 5);
  // Zero activation: three lanes' multiplications are skipped, and only theirs.
  machine.activations({0});
  ASSERT_TRUE(device.run(task).ok());
  EXPECT_EQ(device.counters().zero_skips, 3U);
  EXPECT_EQ(device.results(0)[64], 0);
  // Dense: three active lanes a depth.
  device.reset_counters();
  TaskDescriptor dense = task;
  dense.zero_skip = false;
  ASSERT_TRUE(device.run(dense).ok());
  EXPECT_EQ(device.counters().active_ops, 3U);
}

TEST(TimeLine, TilesMeetAtTheBarrier) {
  // Tile 0: 5 occupied depths of 15; tile 2: 12. Both see 15 non-zero activations.
  Loaded machine;
  Trits weights(15, 0);
  std::fill(weights.begin(), weights.begin() + 5, std::int8_t{1});
  machine.weights(0, weights, 1);
  std::fill(weights.begin(), weights.begin() + 12, std::int8_t{-1});
  machine.weights(2, weights, 1);
  machine.activations(Trits(15, 1));
  ASSERT_TRUE(machine.device.run({.depth = 15, .lanes = 1, .tile_mask = 0b101}).ok());
  EXPECT_EQ(machine.device.results(0)[0], 5);
  EXPECT_EQ(machine.device.results(2)[0], -12);
  EXPECT_EQ(machine.device.counters().cycles, 4U + 12 + 3);
  EXPECT_EQ(machine.device.counters().compute_cycles, 4U + 12 + 3);
  EXPECT_EQ(machine.device.tile_counters()[0].compute_cycles, 4U + 5 + 3);
  EXPECT_EQ(machine.device.tile_counters()[0].stall_cycles, 7U);
  EXPECT_EQ(machine.device.tile_counters()[2].compute_cycles, 4U + 12 + 3);
  EXPECT_EQ(machine.device.tile_counters()[2].stall_cycles, 0U);
}

TEST(TimeLine, DescriptorsOfOneStageRunSideBySide) {
  // The last group of a pass may have fewer outputs: a descriptor of its own on another tile.
  Loaded machine;
  machine.weights(0, Trits(2 * 15, 1), 15);
  machine.weights(1, Trits(2 * 4, -1), 4);
  machine.activations({1, 1});
  const std::vector<TaskDescriptor> passes{{.depth = 2, .lanes = 15, .tile_mask = 1},
                                           {.depth = 2, .lanes = 4, .tile_mask = 2}};
  ASSERT_TRUE(machine.device.execute({.passes = passes}).ok());
  EXPECT_EQ(machine.device.results(0)[14], 2);
  EXPECT_EQ(machine.device.results(1)[3], -2);
  EXPECT_EQ(machine.device.counters().cycles, 4U + 2 + 3);
  EXPECT_EQ(machine.device.counters().active_ops, 2U * 19);
}

// A pass of 9 cycles beside transfers of `loaded` words to the other slot, one result out and one
// partial sum in.
void expect_stage(std::size_t loaded) {
  SCOPED_TRACE("words " + std::to_string(loaded));
  Loaded machine = tiny();
  Device& device = machine.device;
  ASSERT_TRUE(device.load(0x100, Words{70, 80}).ok());
  device.reset_counters();

  const TaskDescriptor task{.depth = 3, .lanes = 2, .accumulate = true};
  const Words activations(loaded, 1);
  const Words partials{500};
  const Words weights{2};
  Words out(2, 99);
  const std::vector<Transfer> transfers{
      {.kind = Transfer::Kind::kResultsOut, .tile_mask = 1, .word = 0, .destination = out},
      {.kind = Transfer::Kind::kPartialsIn, .tile_mask = 1, .word = 1, .source = partials},
      {.kind = Transfer::Kind::kWeights, .tile_mask = 8, .word = 1023, .source = weights},
      {.kind = Transfer::Kind::kActivations, .tile_mask = 0b11, .word = 1, .source = activations}};
  ASSERT_TRUE(device.execute({.passes = {&task, 1}, .transfers = transfers}).ok());

  EXPECT_EQ(out, (Words{70, 80}));          // as they were before the partial sum came in
  EXPECT_EQ(device.results(0)[0], 70 + 0);  // and the commit adds to what came in
  EXPECT_EQ(device.results(0)[1], 500 - 1);
  Words found(loaded);
  ASSERT_TRUE(device.read(0x2004 + 0x2000, found).ok());
  EXPECT_EQ(found, activations);
  ASSERT_TRUE(device.read(0x1000 + 3 * 0x2000 + 4 * 1023, {found.data(), 1}).ok());
  EXPECT_EQ(found[0], 2U);

  const std::uint64_t d = 4 + loaded;
  const Counters expected{.cycles = std::max<std::uint64_t>(9, d),
                          .compute_cycles = 9,
                          .dma_cycles = d,
                          .dense_cycles = std::max<std::uint64_t>(10, d),
                          .active_ops = 3,
                          .zero_skips = 3,
                          .mem_reads = 2 + loaded,
                          .mem_writes = 2,
                          .broadcasts = loaded,
                          .sram_reads = 3,
                          .sram_writes = 1 + 2 * loaded,  // a broadcast is written in each tile
                          .sram_reads_saved = 1};
  EXPECT_EQ(device.counters(), expected);
  EXPECT_EQ(device.tile_counters()[3].sram_writes, 1U);
  EXPECT_EQ(device.tile_counters()[1].sram_writes, loaded);
  EXPECT_EQ(device.tile_counters()[0].stall_cycles, 0U);  // the DMA is no slower tile
}

TEST(TimeLine, ComputeAndDmaOverlap) {
  expect_stage(1);   // d = 5 < k = 9
  expect_stage(5);   // d = 9 = k
  expect_stage(6);   // d = 10: hides nothing more even when dense
  expect_stage(40);  // d = 44 > k
}

TEST(TimeLine, AnEmptyStageTakesNoTime) {
  Loaded machine = tiny();
  const Snapshot before = snapshot(machine.device);
  ASSERT_TRUE(machine.device.execute({}).ok());
  const Transfer nothing{.word = 1024};
  ASSERT_TRUE(machine.device.execute({.transfers = {&nothing, 1}}).ok());
  EXPECT_EQ(snapshot(machine.device), before);
}

TEST(Host, LoadIsAStageAndReadCostsNothing) {
  Device device{FabricConfig{}};
  ASSERT_TRUE(device.load(0x1000, Words{1, 2, 3}).ok());        // Bank A, tile 0
  ASSERT_TRUE(device.load(0x2000 + 0x2000, Words{4, 5}).ok());  // Bank B, tile 1: no broadcast
  ASSERT_TRUE(device.load(0x9000 + 4, Words{6}).ok());          // broadcast
  ASSERT_TRUE(device.load(0x180, Words{0xFFFFFFFF, 0x80000000}).ok());  // results, tile 2
  const Counters expected{.cycles = 8,
                          .dma_cycles = 8,
                          .dense_cycles = 8,
                          .mem_reads = 8,
                          .broadcasts = 1,
                          .sram_writes = 3 + 2 + 4};
  EXPECT_EQ(device.counters(), expected);
  EXPECT_EQ(device.results(2)[0], -1);
  EXPECT_EQ(device.results(2)[1], kMin);
  Words words(2);
  ASSERT_TRUE(device.read(0x4000, words).ok());
  EXPECT_EQ(words, (Words{4, 6}));
  ASSERT_TRUE(device.read(0x2000, words).ok());
  EXPECT_EQ(words, (Words{0, 6}));
  ASSERT_TRUE(device.read(0x180, words).ok());
  EXPECT_EQ(words, (Words{0xFFFFFFFF, 0x80000000}));
  EXPECT_EQ(device.counters(), expected);
}

TEST(Host, PlacedStateEqualsMovedState) {
  std::mt19937_64 random(12);
  Device moved{FabricConfig{}};
  Device placed{FabricConfig{}};
  const Words weights = words_of_trits(random_trits(15 * 30, 0.5, random));
  const Words activations = words_of_trits(random_trits(15 * 20, 0.5, random));
  const Words partials{7, 8};
  const std::vector<Transfer> transfers{
      {.kind = Transfer::Kind::kWeights, .tile_mask = 4, .word = 10, .source = weights},
      {.kind = Transfer::Kind::kActivations, .tile_mask = 5, .word = 3, .source = activations},
      {.kind = Transfer::Kind::kPartialsIn, .tile_mask = 4, .word = 13, .source = partials}};
  ASSERT_TRUE(moved.execute({.transfers = transfers}).ok());
  for (const Transfer& transfer : transfers) {
    placed.place(transfer);
  }
  EXPECT_EQ(placed.counters(), Counters{});
  placed.account(moved.counters(), moved.tile_counters());
  EXPECT_EQ(snapshot(placed), snapshot(moved));

  // Occupancy went with the words: a pass takes the same cycles.
  const TaskDescriptor task{
      .weight_base = 40, .activation_base = 12, .depth = 30, .lanes = 15, .tile_mask = 4};
  ASSERT_TRUE(moved.run(task).ok());
  ASSERT_TRUE(placed.run(task).ok());
  EXPECT_EQ(snapshot(placed), snapshot(moved));

  const std::vector<std::int32_t> values{-5, 6};
  placed.place_results(3, 12, values);
  EXPECT_EQ(placed.results(3)[12], -5);
  EXPECT_EQ(placed.results(3)[13], 6);
}

TEST(Host, CountingOffLeavesStateAsEver) {
  Loaded machine = tiny();
  Device& device = machine.device;
  device.set_counting(false);
  EXPECT_FALSE(device.counting());
  ASSERT_TRUE(device.load(0x100, Words{static_cast<std::uint32_t>(kMin), 1}).ok());
  const TaskDescriptor task{.depth = 3, .lanes = 2, .accumulate = true};
  machine.device.place(Transfer{.kind = Transfer::Kind::kActivations, .source = {}});
  ASSERT_TRUE(device.run(task).ok());
  device.account(Counters{.cycles = 5}, {});
  EXPECT_EQ(device.counters(), Counters{});
  EXPECT_EQ(device.tile_counters()[0], TileCounters{});
  EXPECT_EQ(device.results(0)[0], kMin);
  EXPECT_EQ(device.results(0)[1], 0);
  ASSERT_TRUE(device.load(0x100, Words{0, static_cast<std::uint32_t>(kMin)}).ok());
  ASSERT_TRUE(device.run(task).ok());
  EXPECT_EQ(device.overflow(0)[1], 1);  // a flag is state
  device.set_counting(true);
  device.account(Counters{.cycles = 5, .evictions = 2},
                 std::vector<TileCounters>(4, {.stall_cycles = 3}));
  EXPECT_EQ(device.counters().cycles, 5U);
  EXPECT_EQ(device.counters().evictions, 2U);
  EXPECT_EQ(device.tile_counters()[3].stall_cycles, 3U);
}

TEST(Host, ABigDeviceCostsNothingUntilUsed) {
  // 2 GiB of banks. The words at both ends are real.
  const Geometry geometry = Geometry::make(64, 15, Geometry::kMaxBankDepth).value();
  Device device{FabricConfig{geometry, {}}};
  const std::uint64_t last = geometry.bank_a_base(63) + 4ULL * (geometry.bank_a_words() - 1);
  ASSERT_TRUE(device.load(last, Words{1}).ok());
  Words word(1);
  ASSERT_TRUE(device.read(last, word).ok());
  EXPECT_EQ(word[0], 1U);
}

}  // namespace
}  // namespace tfmbs::fabric
