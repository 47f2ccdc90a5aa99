#include <stdexcept>

#include "kernel_test.hpp"

namespace tfmbs::kernels::test {
namespace {

class FieldCount : public KernelTest {
 protected:
  // occupied empty: all of them.
  void check(const TritMatrix& activations, const std::vector<bool>& occupied, std::size_t chunk) {
    const std::size_t rows = activations.planes.rows();
    const std::size_t trits = activations.planes.trits();
    const std::size_t chunks = (trits + chunk - 1) / chunk;
    std::vector<std::uint64_t> occupancy;
    if (!occupied.empty()) {
      occupancy.resize(bit_plane_blocks(trits) * kPlaneWords);
      for (std::size_t k = 0; k < trits; ++k) {
        if (occupied[k]) occupancy[k / 64] |= std::uint64_t{1} << (k % 64);
      }
    }
    std::vector<std::uint32_t> cycles(rows * chunks, 12345);
    std::vector<std::uint32_t> steps(rows * chunks, 12345);
    GetParam().field_count({.activations = activations.planes.view().words,
                            .rows = rows,
                            .trits = trits,
                            .occupancy = occupancy.empty() ? nullptr : occupancy.data(),
                            .chunk_depth = chunk,
                            .cycles = cycles.data(),
                            .steps = steps.data()});
    std::vector<std::uint32_t> expected_cycles;
    std::vector<std::uint32_t> expected_steps;
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t begin = 0; begin < trits; begin += chunk) {
        const std::size_t end = std::min(trits, begin + chunk);
        std::uint32_t cycle_sum = 0;
        std::uint32_t step_sum = 0;
        for (std::size_t field = begin; field < end; field += 15) {
          std::uint32_t count = 0;
          for (std::size_t k = field; k < std::min(end, field + 15); ++k) {
            if (activations.trits[r * trits + k] != 0 && (occupied.empty() || occupied[k])) ++count;
          }
          step_sum += count;
          cycle_sum += std::max(count, std::uint32_t{1});
        }
        expected_cycles.push_back(cycle_sum);
        expected_steps.push_back(step_sum);
      }
    }
    ASSERT_EQ(steps, expected_steps) << rows << " x " << trits << ", chunks of " << chunk;
    ASSERT_EQ(cycles, expected_cycles) << rows << " x " << trits << ", chunks of " << chunk;
  }
};

TEST_P(FieldCount, RandomShapes) {
  for (std::uint64_t i = 0; i < 300; ++i) {
    SCOPED_TRACE("seed " + std::to_string(case_seed(i)));
    Random random(case_seed(i));
    const std::size_t trits =
        random.chance(0.1) ? random.from_to(4095, 4097) : random.from_to(1, 1100);
    // Mostly sparse: empty fields are the point.
    const double zeros = random.chance(0.3) ? random.real(0, 1) : random.real(0.9, 1);
    const TritMatrix activations = random_trits(random, random.below(5), trits, zeros);
    std::vector<bool> occupied;
    if (random.chance(0.6)) {
      const double share = random.real(0, 1);
      for (std::size_t k = 0; k < trits; ++k) occupied.push_back(random.chance(share));
    }
    const std::size_t chunk =
        random.chance(0.3) ? (trits + 14) / 15 * 15 : 15 * random.from_to(1, 75);
    ASSERT_NO_FATAL_FAILURE(check(activations, occupied, chunk));
  }
}

// One trit in a row: each lands in its field, whatever word, block or chunk it stands in.
TEST_P(FieldCount, OneTrit) {
  constexpr std::size_t kTrits = 1100;
  for (std::size_t k = 0; k < kTrits; ++k) {
    TritMatrix activations;
    activations.trits.assign(kTrits, 0);
    activations.trits[k] = k % 2 == 0 ? std::int8_t{1} : std::int8_t{-1};
    activations.planes = pack_bit_planes(activations.trits, 1, kTrits).value();
    ASSERT_NO_FATAL_FAILURE(check(activations, {}, 15 * (1 + k % 40)));
    ASSERT_NO_FATAL_FAILURE(check(activations, {}, 1110));
  }
}

TEST_P(FieldCount, Extremes) {
  for (const std::size_t trits : {1UL, 15UL, 16UL, 480UL, 512UL, 784UL, 1020UL, 7680UL, 131072UL}) {
    for (const std::size_t chunk : {15UL, 510UL, 1020UL, 15UL * 10000}) {
      for (const int trit : {-1, 0, 1}) {
        ASSERT_NO_FATAL_FAILURE(
            check(constant_trits(2, trits, static_cast<std::int8_t>(trit)), {}, chunk));
      }
    }
  }
}

TFMBS_FOR_EVERY_SET(FieldCount);

}  // namespace
}  // namespace tfmbs::kernels::test
