#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "random_trits.hpp"
#include "tfmbs/format/checkpoint_codes.hpp"

namespace tfmbs {
namespace {

TEST(CheckpointCodes, StridedRowsOfAnySizeComeBack) {
  std::mt19937_64 random(1);
  for (const std::size_t outputs : {0U, 1U, 2U, 3U, 4U, 5U, 6U, 7U, 9U, 10U, 11U, 12U, 67U}) {
    for (const std::size_t depth : {1U, 3U, 64U, 129U}) {
      const auto trits = random_trits(outputs * depth, 0.3, random);
      std::vector<std::uint8_t> packed(strided_rows(outputs) * depth);
      ASSERT_TRUE(pack_strided_codes(trits, outputs, depth, packed).ok());
      for (std::size_t o = 0; o < outputs; ++o) {
        const std::size_t rows = (outputs + 3) / 4;
        for (std::size_t k = 0; k < depth; ++k) {
          const int code = packed[o % rows * depth + k] >> (2 * (o / rows)) & 3;
          ASSERT_EQ(code - 1, trits[o * depth + k]);
        }
      }
      std::vector<std::int8_t> back(trits.size());
      ASSERT_TRUE(unpack_strided_codes(packed, outputs, depth, back).ok());
      EXPECT_EQ(back, trits);
    }
  }
}

TEST(CheckpointCodes, CodeThreeIsNamedByOffsetAndIgnoredInPadding) {
  std::vector<std::uint8_t> packed(2 * 7, 0x55);  // 5 outputs: packed row 1 holds 1 and 3
  std::vector<std::int8_t> trits(5 * 7);
  packed[7 + 3] = 0xF5;  // bits 4 to 7: outputs 5 and 7, which there are not
  EXPECT_TRUE(unpack_strided_codes(packed, 5, 7, trits).ok());
  packed[7 + 4] = 0x5D;
  const Status status = unpack_strided_codes(packed, 5, 7, trits);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kEncoding);
  EXPECT_EQ(status.error().offset, 11U);
}

TEST(CheckpointCodes, WrongSizesAreErrors) {
  std::vector<std::uint8_t> packed(14);
  std::vector<std::int8_t> trits(35);
  EXPECT_FALSE(unpack_strided_codes(packed, 9, 7, trits).ok());
  EXPECT_FALSE(unpack_strided_codes(packed, 4, 7, trits).ok());
  EXPECT_FALSE(
      unpack_strided_codes(packed, std::size_t{1} << 62, std::size_t{1} << 62, trits).ok());
  EXPECT_FALSE(pack_strided_codes(trits, 6, 7, packed).ok());
  std::vector<std::int8_t> block(256);
  std::vector<float> scale(1);
  for (const auto kind : {TernaryBlocks::kTq1, TernaryBlocks::kTq2}) {
    std::vector<std::uint8_t> bytes(block_bytes(kind));
    EXPECT_TRUE(pack_ternary_blocks(kind, block, scale, bytes).ok());
    EXPECT_FALSE(unpack_ternary_blocks(kind, std::span(bytes).first(53), block, scale).ok());
    EXPECT_FALSE(unpack_ternary_blocks(kind, bytes, std::span(block).first(255), scale).ok());
    EXPECT_FALSE(unpack_ternary_blocks(kind, bytes, block, std::span(scale).first(0)).ok());
  }
}

class Blocks : public testing::TestWithParam<TernaryBlocks> {};

TEST_P(Blocks, ComeBack) {
  std::mt19937_64 random(2);
  const std::size_t blocks = 9;
  auto trits = random_trits(blocks * kBlockTrits, 0.3, random);
  std::vector<float> scales{1, 0.5F, -2, 65504, 0x1p-24F, 0x1p-14F, 1023 * 0x1p-24F, 1.5F, 3};
  std::vector<std::uint8_t> bytes(blocks * block_bytes(GetParam()));
  ASSERT_TRUE(pack_ternary_blocks(GetParam(), trits, scales, bytes).ok());
  std::vector<std::int8_t> back(trits.size());
  std::vector<float> back_scales(blocks);
  ASSERT_TRUE(unpack_ternary_blocks(GetParam(), bytes, back, back_scales).ok());
  EXPECT_EQ(back, trits);
  EXPECT_EQ(back_scales, scales);
}

TEST_P(Blocks, EveryScaleOfFp16ComesBackOrIsRefused) {
  std::vector<std::int8_t> trits(kBlockTrits, 1);
  std::vector<std::int8_t> back(kBlockTrits);
  std::vector<std::uint8_t> bytes(block_bytes(GetParam()));
  std::vector<float> scale{1};
  ASSERT_TRUE(pack_ternary_blocks(GetParam(), trits, scale, bytes).ok());
  const std::size_t at = bytes.size() - 2;
  for (std::uint32_t half = 0; half < 65536; ++half) {
    bytes[at] = static_cast<std::uint8_t>(half & 0xFF);
    bytes[at + 1] = static_cast<std::uint8_t>(half >> 8);
    const Status status = unpack_ternary_blocks(GetParam(), bytes, back, scale);
    if ((half >> 10 & 31) == 31) {
      ASSERT_FALSE(status.ok());
      ASSERT_EQ(status.error().offset, at);
      continue;
    }
    ASSERT_TRUE(status.ok());
    const double exponent = half >> 10 & 31;
    const double mantissa = half & 1023U;
    const double size = exponent == 0
                            ? std::ldexp(mantissa, -24)
                            : std::ldexp(1024 + mantissa, static_cast<int>(exponent) - 25);
    ASSERT_EQ(scale[0], half >> 15 != 0 ? -size : size);
    ASSERT_EQ(back[0], size == 0 ? 0 : 1);
    if (size != 0) {
      std::vector<std::uint8_t> again(bytes.size());
      ASSERT_TRUE(pack_ternary_blocks(GetParam(), trits, scale, again).ok());
      ASSERT_EQ(again, bytes);
      scale[0] *= 1 + 0x1p-13F;
      ASSERT_FALSE(pack_ternary_blocks(GetParam(), trits, scale, again).ok());
    }
  }
}

TEST_P(Blocks, ValuesThatAreNoTritsAreNamed) {
  std::vector<std::int8_t> trits(2 * kBlockTrits);
  std::vector<float> scales{1, 1};
  std::vector<std::uint8_t> bytes(2 * block_bytes(GetParam()));
  trits[300] = 2;
  const Status status = pack_ternary_blocks(GetParam(), trits, scales, bytes);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().offset, 300U);
}

TEST_P(Blocks, BytesThatAreNoCodesAreNamed) {
  std::vector<std::int8_t> trits(2 * kBlockTrits, 1);
  std::vector<float> scales{1, 1};
  const std::size_t size = block_bytes(GetParam());
  std::vector<std::uint8_t> bytes(2 * size);
  for (std::size_t at = 0; at < size - 2; ++at) {
    ASSERT_TRUE(pack_ternary_blocks(GetParam(), trits, scales, bytes).ok());
    std::size_t accepted = 0;
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      bytes[size + at] = static_cast<std::uint8_t>(byte);
      const Status status = unpack_ternary_blocks(GetParam(), bytes, trits, scales);
      accepted += status.ok() ? 1U : 0U;
      if (!status.ok()) {
        ASSERT_EQ(status.error().code, ErrorCode::kEncoding);
        ASSERT_EQ(status.error().offset, size + at);
      }
    }
    EXPECT_EQ(accepted, GetParam() == TernaryBlocks::kTq2 || at >= 48 ? 81U : 243U);
    trits.assign(trits.size(), 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Blocks, testing::Values(TernaryBlocks::kTq1, TernaryBlocks::kTq2));

TEST(CheckpointCodes, NamesOfBlocks) {
  EXPECT_EQ(parse_ternary_blocks("tq1_0").value(), TernaryBlocks::kTq1);
  EXPECT_EQ(parse_ternary_blocks("tq2_0").value(), TernaryBlocks::kTq2);
  EXPECT_FALSE(parse_ternary_blocks("i2_s").ok());
}

}  // namespace
}  // namespace tfmbs
