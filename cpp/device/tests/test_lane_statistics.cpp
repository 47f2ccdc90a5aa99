#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "tfmbs/device/lane_statistics.hpp"

namespace tfmbs::device {
namespace {

std::vector<std::int8_t> random_trits(std::mt19937_64& random, std::size_t count, double zeros) {
  std::vector<std::int8_t> trits(count);
  for (auto& trit : trits) {
    const double draw = std::uniform_real_distribution<>(0, 1)(random);
    trit = static_cast<std::int8_t>(draw < zeros ? 0 : random() % 2 == 0 ? 1 : -1);
  }
  return trits;
}

struct Layer {
  std::size_t outputs;
  std::size_t depth;
  std::uint32_t lanes;
  std::uint32_t slots;
  std::vector<std::int8_t> trits;

  [[nodiscard]] std::size_t groups() const { return (outputs + lanes - 1) / lanes; }
  [[nodiscard]] std::uint32_t nonzeros(std::size_t group, std::size_t k) const {
    std::uint32_t count = 0;
    for (std::size_t n = group * lanes; n < std::min<std::size_t>(outputs, (group + 1) * lanes);
         ++n) {
      count += trits[n * depth + k] != 0 ? 1U : 0U;
    }
    return count;
  }
  // Bits of the depths from `first` on, of 15, at which the group has no weight.
  [[nodiscard]] unsigned empty(std::size_t group, std::size_t first) const {
    unsigned bits = 0;
    for (std::size_t k = first; k < std::min(depth, first + 15); ++k) {
      if (nonzeros(group, k) == 0) bits |= 1U << (k - first);
    }
    return bits;
  }
  [[nodiscard]] bool full(std::size_t group) const {
    for (std::size_t k = 0; k < depth; ++k) {
      if (nonzeros(group, k) == 0) return false;
    }
    return true;
  }
};

Layer random_layer(std::mt19937_64& random) {
  Layer layer{.outputs = 1 + random() % 900,
              .depth = 1 + random() % 200,
              .lanes = static_cast<std::uint32_t>(1 + random() % 16),
              .slots = static_cast<std::uint32_t>(1 + random() % 5),
              .trits = {}};
  constexpr double kZeros[] = {0.05, 0.3, 0.7, 0.95};
  layer.trits = random_trits(random, layer.outputs * layer.depth, kZeros[random() % 4]);
  return layer;
}

// Portions of any size, none included.
LaneStatistics count(std::mt19937_64& random, const Layer& layer) {
  const BitPlaneMatrix weights = pack_bit_planes(layer.trits, layer.outputs, layer.depth).value();
  LaneStatistics statistics(layer.outputs, layer.depth, layer.lanes, layer.slots);
  for (std::size_t first = 0; first < layer.outputs;) {
    const std::size_t rows = std::min<std::size_t>(random() % 40, layer.outputs - first);
    statistics.add_rows(weights.view().slice(first, rows));
    first += rows;
  }
  statistics.finish();
  return statistics;
}

std::uint32_t at(const SlotCounts& counts, std::size_t i) {
  return counts.low()[i] + (counts.high().empty() ? 0 : std::uint32_t{counts.high()[i]} << 16);
}

TEST(SlotCounts, KeepsWhatSixteenBitsDoNotHold) {
  const std::vector<std::uint32_t> small{0, 1, 65535};
  EXPECT_TRUE(SlotCounts(small).high().empty());
  const std::vector<std::uint32_t> large{0, 65535, 65536, 0xFFFFFFFF};
  for (std::size_t i = 0; i < large.size(); ++i) EXPECT_EQ(at(SlotCounts(large), i), large[i]);
}

TEST(LaneStatistics, CountsAtEachDepth) {
  std::mt19937_64 random(20240229);
  for (int round = 0; round < 40; ++round) {
    const Layer layer = random_layer(random);
    const LaneStatistics statistics = count(random, layer);
    std::vector<std::uint32_t> nonzeros(layer.slots * layer.depth);
    std::vector<std::uint32_t> occupied(layer.slots * layer.depth);
    std::vector<std::uint64_t> slot_nonzeros(layer.slots);
    std::vector<std::uint64_t> slot_occupied(layer.slots);
    std::vector<std::uint64_t> full_groups(layer.slots);
    bool all = true;
    for (std::size_t g = 0; g < layer.groups(); ++g) {
      const std::size_t slot = g % layer.slots;
      for (std::size_t k = 0; k < layer.depth; ++k) {
        nonzeros[slot * layer.depth + k] += layer.nonzeros(g, k);
        occupied[slot * layer.depth + k] += layer.nonzeros(g, k) != 0 ? 1U : 0U;
        slot_nonzeros[slot] += layer.nonzeros(g, k);
        slot_occupied[slot] += layer.nonzeros(g, k) != 0 ? 1U : 0U;
      }
      full_groups[slot] += layer.full(g) ? 1U : 0U;
      all = all && layer.full(g);
    }
    ASSERT_EQ(statistics.all_occupied(), all);
    for (std::size_t i = 0; i < nonzeros.size(); ++i) {
      ASSERT_EQ(at(statistics.nonzeros(), i), nonzeros[i]);
    }
    std::size_t unfull = 0;
    for (std::uint32_t slot = 0; slot < layer.slots; ++slot) {
      const std::size_t groups = (layer.groups() - slot + layer.slots - 1) / layer.slots;
      if (full_groups[slot] != groups) {
        ASSERT_LT(unfull, statistics.unfull_slots().size());
        ASSERT_EQ(statistics.unfull_slots()[unfull], slot);
        for (std::size_t k = 0; k < layer.depth; ++k) {
          ASSERT_EQ(at(statistics.occupied(), unfull * layer.depth + k),
                    occupied[slot * layer.depth + k]);
        }
        ++unfull;
      }
      ASSERT_EQ(statistics.slot_nonzeros(slot), slot_nonzeros[slot]);
      ASSERT_EQ(statistics.slot_occupied(slot), slot_occupied[slot]);
      ASSERT_EQ(statistics.full_groups(slot), full_groups[slot]);
    }
    ASSERT_EQ(statistics.unfull_slots().size(), unfull);
  }
}

TEST(LaneStatistics, HasALaneForEverySparsePassAndLoneGroup) {
  std::mt19937_64 random(7);
  int nearly_full = 0;
  for (int round = 0; round < 200; ++round) {
    const Layer layer = random_layer(random);
    const LaneStatistics statistics = count(random, layer);
    std::vector<std::uint64_t> sparse;
    std::vector<std::uint64_t> lone;
    for (std::size_t first = 0; first < layer.groups(); first += layer.slots) {
      std::vector<std::uint64_t> unfull;
      const std::size_t end = std::min<std::size_t>(first + layer.slots, layer.groups());
      for (std::size_t g = first; g < end; ++g) {
        if (!layer.full(g)) unfull.push_back(g);
      }
      if (unfull.size() == end - first) {
        sparse.push_back(first / layer.slots);
      } else {
        lone.insert(lone.end(), unfull.begin(), unfull.end());
      }
    }
    const auto same = [](std::span<const std::uint64_t> a, const std::vector<std::uint64_t>& b) {
      return std::equal(a.begin(), a.end(), b.begin(), b.end());
    };
    ASSERT_TRUE(same(statistics.sparse_passes(), sparse));
    ASSERT_TRUE(same(statistics.lone_groups(), lone));

    // Group of a lane's slot, or none.
    const auto group_of = [&](std::size_t lane, std::size_t slot) {
      return lane < sparse.size() ? sparse[lane] * layer.slots + slot : lone[lane - sparse.size()];
    };
    std::size_t lanes = 0;
    std::size_t places = 0;
    // Fields that are partly empty, over all groups that are not full.
    std::size_t partly = 0;
    for (std::size_t lane = 0; lane < sparse.size() + lone.size(); ++lane) {
      for (std::size_t slot = 0; slot < (lane < sparse.size() ? layer.slots : 1); ++slot) {
        const std::size_t group = group_of(lane, slot);
        for (std::size_t first = 0; group < layer.groups() && first < layer.depth; first += 15) {
          partly += layer.empty(group, first) != 0 ? 1U : 0U;
        }
      }
    }
    const std::size_t fields = (layer.depth + 14) / 15;
    ASSERT_EQ(statistics.nearly_full(), partly != 0 && partly <= fields);
    nearly_full += statistics.nearly_full() ? 1 : 0;
    for (const LaneBlock& block : statistics.blocks()) {
      ASSERT_EQ(block.first, lanes);
      ASSERT_EQ(block.first_place, places);
      ASSERT_LE(block.used, block.lanes);
      lanes += block.used;
      places += block.lanes;
      if (statistics.nearly_full()) {
        ASSERT_EQ(block.lanes, 1);
        ASSERT_EQ(block.used, 1);
        for (std::uint32_t slot = 0; slot < block.slots; ++slot) {
          const std::size_t group = group_of(block.first, slot);
          std::vector<unsigned> empty(fields);
          std::size_t next = 0;
          for (const auto& [field, bits] : statistics.partly_empty(block, slot)) {
            ASSERT_NE(bits, 0);
            ASSERT_GE(field, next);
            next = field + 1;
            empty.at(field) = bits;
          }
          for (std::size_t j = 0; j < fields; ++j) {
            ASSERT_EQ(empty[j], layer.empty(group, 15 * j));
          }
        }
        // Every group that there is.
        const std::size_t pass = block.first < sparse.size() ? sparse[block.first] : 0;
        ASSERT_EQ(block.slots,
                  block.first >= sparse.size()
                      ? 1
                      : std::min<std::size_t>(layer.slots, layer.groups() - pass * layer.slots));
        continue;
      }
      const std::uint16_t* occupancy = statistics.occupancy(block);
      for (std::size_t slot = 0; slot < block.slots; ++slot) {
        for (std::size_t k = 0; k < fields * 15; ++k) {
          for (std::size_t i = 0; i < block.lanes; ++i) {
            bool expected = false;
            if (i < block.used && k < layer.depth) {
              const std::size_t group = group_of(block.first + i, slot);
              expected = group < layer.groups() && layer.nonzeros(group, k) != 0;
            }
            const unsigned field = occupancy[(slot * fields + k / 15) * block.lanes + i];
            ASSERT_EQ((field >> (k % 15) & 1U) != 0, expected);
          }
        }
      }
    }
    ASSERT_EQ(lanes, sparse.size() + lone.size());
  }
  EXPECT_GE(nearly_full, 5);
}

TEST(LaneStatistics, PortionsCountAsTheWhole) {
  std::mt19937_64 random(3);
  const Layer layer = random_layer(random);
  const LaneStatistics portions = count(random, layer);
  const BitPlaneMatrix weights = pack_bit_planes(layer.trits, layer.outputs, layer.depth).value();
  const LaneStatistics whole(weights.view(), layer.lanes, layer.slots);
  ASSERT_EQ(portions.blocks().size(), whole.blocks().size());
  ASSERT_EQ(portions.partly_empty_fields(), whole.partly_empty_fields());
  for (std::size_t i = 0; i < layer.slots * layer.depth; ++i) {
    ASSERT_EQ(at(portions.nonzeros(), i), at(whole.nonzeros(), i));
  }
}

}  // namespace
}  // namespace tfmbs::device
