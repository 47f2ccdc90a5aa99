#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "tfmbs/runtime/lane_statistics.hpp"

namespace tfmbs::runtime {
namespace {

std::vector<std::int8_t> random_trits(std::mt19937_64& random, std::size_t count, double zeros) {
  std::vector<std::int8_t> trits(count);
  for (auto& trit : trits) {
    const double draw = std::uniform_real_distribution<>(0, 1)(random);
    trit = static_cast<std::int8_t>(draw < zeros ? 0 : random() % 2 == 0 ? 1 : -1);
  }
  return trits;
}

void expect_same(const LaneStatistics& a, const LaneStatistics& b, std::size_t outputs,
                 std::size_t depth) {
  const std::uint32_t slots = a.tile_slots();
  ASSERT_EQ(a.all_occupied(), b.all_occupied());
  for (std::size_t i = 0; i < slots * depth; ++i) ASSERT_EQ(a.nonzeros()[i], b.nonzeros()[i]);
  for (std::uint32_t s = 0; s < slots; ++s) ASSERT_EQ(a.slot_nonzeros(s), b.slot_nonzeros(s));
  for (std::size_t g = 0; g < (outputs + a.lanes() - 1) / a.lanes(); ++g) {
    ASSERT_EQ(a.occupancy(g) == nullptr, b.occupancy(g) == nullptr) << "group " << g;
    for (std::size_t w = 0; a.occupancy(g) != nullptr && w < (depth + 511) / 512 * 8; ++w) {
      ASSERT_EQ(a.occupancy(g)[w], b.occupancy(g)[w]) << "group " << g;
    }
  }
}

TEST(LaneStatistics, PortionsOfAnySizeCountAsTheWhole) {
  std::mt19937_64 random(20240229);
  for (int round = 0; round < 60; ++round) {
    const std::size_t outputs = 1 + random() % 90;
    const std::size_t depth = 1 + random() % 700;
    const auto lanes = static_cast<std::uint32_t>(1 + random() % 20);
    const auto slots = static_cast<std::uint32_t>(1 + random() % 6);
    const double zeros = round % 2 == 0 ? 0.95 : 0.3;
    const BitPlaneMatrix weights =
        pack_bit_planes(random_trits(random, outputs * depth, zeros), outputs, depth).value();
    LaneStatistics portions(outputs, depth, lanes, slots);
    for (std::size_t first = 0; first < outputs;) {
      const std::size_t count = std::min<std::size_t>(random() % 40, outputs - first);
      portions.add_rows(weights.view().slice(first, count));
      first += count;
    }
    portions.finish();
    ASSERT_NO_FATAL_FAILURE(
        expect_same(portions, LaneStatistics(weights.view(), lanes, slots), outputs, depth));
  }
}

// Against a loop over the trits.
TEST(LaneStatistics, CountsWhatTheTritsSay) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 20; ++round) {
    const std::size_t outputs = 1 + random() % 50;
    const std::size_t depth = 1 + random() % 600;
    const std::uint32_t lanes = round % 2 == 0 ? 4 : 15;
    constexpr std::uint32_t kSlots = 3;
    const auto trits = random_trits(random, outputs * depth, 0.8);
    const LaneStatistics statistics(pack_bit_planes(trits, outputs, depth).value().view(), lanes,
                                    kSlots);
    std::vector<std::uint32_t> nonzeros(kSlots * depth);
    for (std::size_t g = 0; g * lanes < outputs; ++g) {
      bool full = true;
      std::vector<bool> occupied(depth);
      for (std::size_t k = 0; k < depth; ++k) {
        for (std::size_t n = g * lanes; n < std::min<std::size_t>(outputs, (g + 1) * lanes); ++n) {
          if (trits[n * depth + k] == 0) continue;
          occupied[k] = true;
          ++nonzeros[g % kSlots * depth + k];
        }
        full = full && occupied[k];
      }
      ASSERT_EQ(statistics.occupancy(g) == nullptr, full);
      for (std::size_t k = 0; k < depth && !full; ++k) {
        ASSERT_EQ(statistics.occupancy(g)[k / 64] >> (k % 64) & 1, occupied[k] ? 1U : 0U);
      }
    }
    for (std::size_t i = 0; i < nonzeros.size(); ++i) {
      ASSERT_EQ(statistics.nonzeros()[i], nonzeros[i]);
    }
  }
}

}  // namespace
}  // namespace tfmbs::runtime
