#include <algorithm>
#include <bit>

#include "kernel_test.hpp"

namespace tfmbs::kernels::test {
namespace {

struct Shape {
  std::size_t rows;
  std::size_t planes;
  std::size_t fields;
  std::size_t chunk;
  std::size_t slots;
  std::size_t lanes;
};

class TileCycles : public KernelTest {
 protected:
  // x[row][plane][field], u[slot][field][lane], floors[chunk][lane] (or none).
  void check(const Shape& s, const std::vector<std::uint16_t>& x,
             const std::vector<std::uint16_t>& u, const std::vector<std::uint32_t>& floors) {
    std::vector<std::uint64_t> slots(s.slots, 3);
    std::vector<std::uint64_t> slowest(s.lanes, 4);
    std::vector<std::uint64_t> stages(s.lanes, 5);
    std::vector<std::uint64_t> expected_slots = slots;
    std::vector<std::uint64_t> expected_slowest = slowest;
    std::vector<std::uint64_t> expected_stages = stages;
    for (std::size_t r = 0; r < s.rows; ++r) {
      for (std::size_t begin = 0; begin < s.fields; begin += s.chunk) {
        for (std::size_t lane = 0; lane < s.lanes; ++lane) {
          std::uint64_t most = 0;
          for (std::size_t slot = 0; slot < s.slots; ++slot) {
            std::uint64_t cycles = 0;
            for (std::size_t p = 0; p < s.planes; ++p) {
              for (std::size_t j = begin; j < std::min(s.fields, begin + s.chunk); ++j) {
                const auto bits =
                    static_cast<std::uint16_t>(x[(r * s.planes + p) * s.fields + j] &
                                               u[(slot * s.fields + j) * s.lanes + lane]);
                cycles += static_cast<std::uint64_t>(std::max(1, std::popcount(bits)));
              }
            }
            expected_slots[slot] += cycles;
            most = std::max(most, cycles);
          }
          expected_slowest[lane] += most;
          if (floors.empty()) continue;
          expected_stages[lane] +=
              std::max<std::uint64_t>(most, floors[begin / s.chunk * s.lanes + lane]);
        }
      }
    }
    std::vector<std::uint16_t> copied;
    for (const std::uint16_t field : x) copied.insert(copied.end(), field_copies(s.lanes), field);
    GetParam().tile_cycles({.fields = copied.data(),
                            .rows = s.rows,
                            .planes = s.planes,
                            .field_count = s.fields,
                            .chunk_fields = s.chunk,
                            .occupancy = u.data(),
                            .slots = s.slots,
                            .lanes = s.lanes,
                            .floors = floors.empty() ? nullptr : floors.data(),
                            .slot_cycles = slots.data(),
                            .slowest = slowest.data(),
                            .stages = stages.data()});
    ASSERT_EQ(slots, expected_slots);
    ASSERT_EQ(slowest, expected_slowest);
    ASSERT_EQ(stages, expected_stages);
  }
};

std::vector<std::uint16_t> random_fields(Random& random, std::size_t count, double zeros) {
  std::vector<std::uint16_t> fields(count);
  for (auto& field : fields) {
    for (unsigned i = 0; i < 15; ++i) {
      if (!random.chance(zeros)) field |= static_cast<std::uint16_t>(1U << i);
    }
  }
  return fields;
}

TEST_P(TileCycles, RandomShapes) {
  for (std::uint64_t i = 0; i < 300; ++i) {
    Random random(case_seed(i));
    const Shape s{.rows = random.below(4),
                  .planes = random.chance(0.5) ? 1 : random.from_to(2, 6),
                  .fields = random.from_to(1, 70),
                  .chunk = random.from_to(1, 70),
                  .slots = random.chance(0.1) ? random.from_to(1, 64) : random.from_to(1, 9),
                  .lanes = std::size_t{1} << random.below(6)};
    SCOPED_TRACE("seed " + std::to_string(case_seed(i)) + ", " + std::to_string(s.lanes) +
                 " lanes, " + std::to_string(s.slots) + " slots, " + std::to_string(s.fields) +
                 " fields in chunks of " + std::to_string(s.chunk));
    const double zeros = random.real(0, 1);
    std::vector<std::uint16_t> x;  // some planes are all zero
    for (std::size_t plane = 0; plane < s.rows * s.planes; ++plane) {
      const auto fields = random_fields(random, s.fields, random.chance(0.2) ? 1 : zeros);
      x.insert(x.end(), fields.begin(), fields.end());
    }
    const auto u = random_fields(random, s.slots * s.fields * s.lanes, random.real(0, 1));
    std::vector<std::uint32_t> floors;
    if (random.chance(0.7)) {
      for (std::size_t f = 0; f < (s.fields + s.chunk - 1) / s.chunk * s.lanes; ++f) {
        floors.push_back(static_cast<std::uint32_t>(random.below(15 * s.chunk * s.planes)));
      }
    }
    ASSERT_NO_FATAL_FAILURE(check(s, x, u, floors));
  }
}

// More fields than a 16-bit count holds, and floors that fill 32 bits.
TEST_P(TileCycles, Extremes) {
  for (const std::size_t lanes : {1UL, 2UL, 16UL, 32UL}) {
    for (const std::size_t planes : {1UL, 6UL}) {
      const Shape s{
          .rows = 2, .planes = planes, .fields = 9000, .chunk = 9000, .slots = 3, .lanes = lanes};
      ASSERT_NO_FATAL_FAILURE(
          check(s, std::vector<std::uint16_t>(s.rows * s.planes * s.fields, 0x7FFF),
                std::vector<std::uint16_t>(s.slots * s.fields * lanes, 0x7FFF),
                std::vector<std::uint32_t>(lanes, 0xFFFFFFFF)));
    }
  }
}

TFMBS_FOR_EVERY_SET(TileCycles);

}  // namespace
}  // namespace tfmbs::kernels::test
