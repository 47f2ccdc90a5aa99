#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/kernels/kernels.hpp"
#include "tfmbs/kernels/saved_cycles.hpp"

namespace tfmbs::kernels {
namespace {

// Cycles of the trits of one plane, a field at a time: depths that `empty` says count for none.
std::uint32_t cycles(const std::vector<std::int8_t>& trits, const std::vector<bool>& empty) {
  std::uint32_t sum = 0;
  for (std::size_t first = 0; first < trits.size(); first += kFieldTrits) {
    std::uint32_t count = 0;
    for (std::size_t k = first; k < std::min(trits.size(), first + kFieldTrits); ++k) {
      count += trits[k] != 0 && !empty[k] ? 1U : 0U;
    }
    sum += std::max<std::uint32_t>(1, count);
  }
  return sum;
}

std::vector<PartlyEmptyField> fields_of_depths(const std::vector<bool>& empty) {
  std::vector<PartlyEmptyField> fields;
  for (std::size_t k = 0; k < empty.size(); ++k) {
    if (!empty[k]) continue;
    const auto field = static_cast<std::uint32_t>(k / kFieldTrits);
    if (fields.empty() || fields.back().field != field) fields.push_back({field, 0});
    fields.back().empty = static_cast<std::uint16_t>(fields.back().empty | 1U << k % kFieldTrits);
  }
  return fields;
}

// Digits in balanced ternary, the least significant first: value = sum of 3^p digit[p].
std::vector<std::vector<std::int8_t>> digits(const std::vector<std::int8_t>& values) {
  std::vector<std::vector<std::int8_t>> planes(kInt8Planes,
                                               std::vector<std::int8_t>(values.size()));
  for (std::size_t k = 0; k < values.size(); ++k) {
    int rest = values[k];
    for (auto& plane : planes) {
      int digit = ((rest % 3) + 3) % 3;
      if (digit == 2) digit = -1;
      plane[k] = static_cast<std::int8_t>(digit);
      rest = (rest - digit) / 3;
    }
    EXPECT_EQ(rest, 0);
  }
  return planes;
}

TEST(SavedCycles, AreTheDifferenceToAFullGroup) {
  constexpr std::uint64_t kSeed = 20261123;
  std::mt19937_64 random(kSeed);
  for (int round = 0; round < 2000; ++round) {
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", round " + std::to_string(round));
    const std::size_t depth = 1 + random() % 1200;
    const auto some = [&](std::uint64_t one_in) { return random() % one_in == 0; };
    const std::uint64_t one_in = std::uint64_t{1} << random() % 8;  // all, half... of the depths
    const std::uint64_t zero_in = 1 + random() % 4;
    std::vector<bool> empty(depth);
    std::vector<std::int8_t> values(depth);
    std::vector<std::int8_t> trits(depth);
    for (std::size_t k = 0; k < depth; ++k) {
      empty[k] = some(one_in);
      if (some(zero_in)) continue;
      values[k] = static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
      trits[k] = some(2) ? 1 : -1;
    }
    const std::vector<bool> none(depth);
    const std::vector<PartlyEmptyField> fields = fields_of_depths(empty);

    std::uint32_t of_values = 0;
    for (const auto& plane : digits(values))
      of_values += cycles(plane, none) - cycles(plane, empty);
    ASSERT_EQ(saved_cycles(values.data(), depth, fields), of_values);

    const BitPlaneMatrix row = pack_bit_planes(trits, 1, depth).value();
    ASSERT_EQ(saved_cycles(row.view().row(0), depth, fields),
              cycles(trits, none) - cycles(trits, empty));
  }
}

TEST(SavedCycles, OfEveryValueAlone) {
  const std::vector<PartlyEmptyField> fields{{.field = 0, .empty = 1}};
  for (int value = -127; value <= 127; ++value) {
    // Beside values that have a digit in every plane, so that a field's least cycle hides nothing.
    const std::vector<std::int8_t> row{static_cast<std::int8_t>(value), 121, 0, 127, -127};
    const std::vector<bool> none(row.size());
    std::vector<bool> first(row.size());
    first[0] = true;
    std::uint32_t expected = 0;
    for (const auto& plane : digits(row)) expected += cycles(plane, none) - cycles(plane, first);
    ASSERT_EQ(saved_cycles(row.data(), row.size(), fields), expected) << value;
  }
}

}  // namespace
}  // namespace tfmbs::kernels
