#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "random_trits.hpp"
#include "tfmbs/format/lane_major.hpp"
#include "tfmbs/format/pt5.hpp"

namespace tfmbs {
namespace {

// 15 trits to a word by the definition.
std::uint32_t naive_word(const std::vector<std::int8_t>& trits) {
  std::uint32_t word = 0;
  for (std::uint32_t byte = 0; byte < 3; ++byte) {
    std::uint32_t power = 1;
    for (std::uint32_t i = 0; i < 5; ++i, power *= 3) {
      word += trit_digit(trits[5 * byte + i]) * power << (8 * byte);
    }
  }
  return word;
}

std::vector<std::uint32_t> naive_lane_major(BitPlaneView weights, LaneBlock block) {
  std::vector<std::uint32_t> words;
  for (std::size_t d = 0; d < block.depths; ++d) {
    for (std::size_t w = 0; w < (block.lanes + 14) / 15; ++w) {
      std::vector<std::int8_t> trits(15, 0);
      for (std::size_t i = 0; i < 15; ++i) {
        const std::size_t lane = 15 * w + i;
        if (lane < block.lanes && block.output + lane < weights.rows) {
          trits[i] = static_cast<std::int8_t>(weights.trit(block.output + lane, block.depth + d));
        }
      }
      words.push_back(naive_word(trits));
    }
  }
  return words;
}

TEST(LaneMajor, EqualsTheNaiveLoopAndInverts) {
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const auto pick = [&](std::size_t low, std::size_t high) {
      return std::uniform_int_distribution<std::size_t>(low, high)(random);
    };
    const std::size_t rows = pick(1, 70);
    const std::size_t columns = pick(1, 1300);
    const auto trits = random_trits(rows * columns, 0.4, random);
    const BitPlaneMatrix weights = pack_bit_planes(trits, rows, columns).value();

    LaneBlock block;
    block.output = pick(0, rows + 3);
    block.lanes = pick(1, 50);
    block.depth = pick(0, 1) == 0 ? pick(0, columns) : pick(0, columns) / 8 * 8;
    block.depths = pick(0, columns - block.depth);
    std::vector<std::uint32_t> words(block.depths * pt5_words(block.lanes), 0xDEADBEEF);
    pack_lane_major(weights.view(), block, words);
    ASSERT_EQ(words, naive_lane_major(weights.view(), block));

    // Into a matrix full of something else: the rectangle, and nothing but it, is replaced.
    const auto other = random_trits(rows * columns, 0.1, random);
    BitPlaneMatrix again = pack_bit_planes(other, rows, columns).value();
    ASSERT_TRUE(unpack_lane_major(words, block, again).ok());
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t k = 0; k < columns; ++k) {
        const bool inside = r >= block.output && r - block.output < block.lanes &&
                            k >= block.depth && k - block.depth < block.depths;
        ASSERT_EQ(again.view().trit(r, k), (inside ? trits : other)[r * columns + k]);
      }
    }
  }
}

TEST(LaneMajor, ActivationsEqualTheNaiveLoop) {
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const std::size_t columns = std::uniform_int_distribution<std::size_t>(1, 1300)(random);
    const auto trits = random_trits(columns, 0.5, random);
    const BitPlaneMatrix row = pack_bit_planes(trits, 1, columns).value();
    const std::size_t depth = std::uniform_int_distribution<std::size_t>(0, columns)(random);
    const std::size_t depths =
        std::uniform_int_distribution<std::size_t>(0, columns - depth)(random);
    std::vector<std::uint32_t> words(pt5_words(depths), 0xDEADBEEF);
    pack_activations(row.view(), depth, depths, words);
    for (std::size_t j = 0; j < words.size(); ++j) {
      std::vector<std::int8_t> fifteen(15, 0);
      for (std::size_t i = 0; i < 15 && 15 * j + i < depths; ++i) {
        fifteen[i] = trits[depth + 15 * j + i];
      }
      ASSERT_EQ(words[j], naive_word(fifteen)) << j;
    }
  }
}

TEST(LaneMajor, UnpackRefusesBadWordsAndTouchesNothing) {
  std::mt19937_64 random(9);
  const auto trits = random_trits(20 * 100, 0.3, random);
  const BitPlaneMatrix source = pack_bit_planes(trits, 20, 100).value();
  const LaneBlock block{.output = 0, .lanes = 30, .depth = 3, .depths = 90};
  std::vector<std::uint32_t> words(90 * 2);
  pack_lane_major(source.view(), block, words);

  const auto expect_refused = [&](std::vector<std::uint32_t> bad, ErrorCode code,
                                  std::uint64_t offset) {
    BitPlaneMatrix target(20, 100);
    const Status status = unpack_lane_major(bad, block, target);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, code);
    EXPECT_EQ(status.error().offset, offset);
    for (std::size_t i = 0; i < target.bytes() / 8; ++i) {
      ASSERT_EQ(target.data()[i], 0U);
    }
  };
  auto bad = words;
  bad[101] = 0x0000F300;
  expect_refused(bad, ErrorCode::kEncoding, 4 * 101 + 1);
  bad = words;
  bad[179] |= 0x01000000;
  expect_refused(bad, ErrorCode::kEncoding, 4 * 179 + 3);
  // Lanes 15...19 have rows; lane 20 is trit 5 of the odd words, the lowest digit of byte 1.
  bad = words;
  bad[77] += 0x100;
  expect_refused(bad, ErrorCode::kEncoding, 4 * 77);

  BitPlaneMatrix target(20, 100);
  words.pop_back();
  EXPECT_EQ(unpack_lane_major(words, block, target).error().code, ErrorCode::kInvalidArgument);
  BitPlaneMatrix narrow(20, 92);
  words.push_back(0);
  EXPECT_EQ(unpack_lane_major(words, block, narrow).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace tfmbs
