#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "random_trits.hpp"
#include "tfmbs/format/checkpoint_codes.hpp"

namespace tfmbs {
namespace {

constexpr std::array kKinds{TernaryBlocks::kTq1, TernaryBlocks::kTq2, TernaryBlocks::kQ2,
                            TernaryBlocks::kQ2Wide};

[[nodiscard]] bool is_q2(TernaryBlocks kind) {
  return kind == TernaryBlocks::kQ2 || kind == TernaryBlocks::kQ2Wide;
}

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
  std::vector<float> scale(1);
  for (const auto kind : kKinds) {
    std::vector<std::int8_t> block(block_trits(kind));
    std::vector<std::uint8_t> bytes(block_bytes(kind));
    const std::span<const std::uint8_t> most = std::span(bytes).first(bytes.size() - 1);
    EXPECT_TRUE(pack_ternary_blocks(kind, block, scale, bytes).ok());
    EXPECT_FALSE(unpack_ternary_blocks(kind, most, block, scale).ok());
    EXPECT_FALSE(unpack_ternary_blocks(kind, bytes, std::span(block).first(63), scale).ok());
    EXPECT_FALSE(unpack_ternary_blocks(kind, bytes, block, std::span(scale).first(0)).ok());
  }
  std::vector<std::uint8_t> codes(48);
  std::vector<std::int8_t> out(192);
  EXPECT_TRUE(unpack_interleaved_codes(codes, 64, out).ok());
  EXPECT_FALSE(unpack_interleaved_codes(codes, 128, out).ok());
  EXPECT_FALSE(unpack_interleaved_codes(codes, 32, out).ok());
  EXPECT_FALSE(unpack_interleaved_codes(codes, 64, std::span(out).first(191)).ok());
}

class Blocks : public testing::TestWithParam<TernaryBlocks> {};

TEST_P(Blocks, ComeBack) {
  std::mt19937_64 random(2);
  const std::size_t blocks = 9;
  auto trits = random_trits(blocks * block_trits(GetParam()), 0.3, random);
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
  std::vector<std::int8_t> trits(block_trits(GetParam()), 1);
  std::vector<std::int8_t> back(trits.size());
  std::vector<std::uint8_t> bytes(block_bytes(GetParam()));
  std::vector<float> scale{1};
  ASSERT_TRUE(pack_ternary_blocks(GetParam(), trits, scale, bytes).ok());
  const std::size_t at = is_q2(GetParam()) ? 0 : bytes.size() - 2;
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
  std::vector<std::int8_t> trits(2 * block_trits(GetParam()));
  std::vector<float> scales{1, 1};
  std::vector<std::uint8_t> bytes(2 * block_bytes(GetParam()));
  trits[70] = 2;
  const Status status = pack_ternary_blocks(GetParam(), trits, scales, bytes);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().offset, 70U);
}

TEST_P(Blocks, BytesThatAreNoCodesAreNamed) {
  std::vector<std::int8_t> trits(2 * block_trits(GetParam()), 1);
  std::vector<float> scales{1, 1};
  const std::size_t size = block_bytes(GetParam());
  std::vector<std::uint8_t> bytes(2 * size);
  const std::size_t first = is_q2(GetParam()) ? 2 : 0;
  for (std::size_t at = first; at < first + size - 2; ++at) {
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
    EXPECT_EQ(accepted, GetParam() != TernaryBlocks::kTq1 || at >= 48 ? 81U : 243U);
    trits.assign(trits.size(), 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Blocks, testing::ValuesIn(kKinds));

TEST(CheckpointCodes, Q2BlocksAreTheScaleAndCodesInOrder) {
  for (const auto kind : {TernaryBlocks::kQ2, TernaryBlocks::kQ2Wide}) {
    const std::size_t weights = block_trits(kind);
    std::vector<std::uint8_t> bytes(weights / 4 + 2, 0x55);  // zeros
    ASSERT_EQ(bytes.size(), block_bytes(kind));
    bytes[0] = 0x00;
    bytes[1] = 0x38;          // 0.5
    bytes[2 + 3] = 0x55 - 1;  // weight 12 is -1
    bytes[2 + 15] = 0x95;     // weight 63 is +1
    std::vector<std::int8_t> trits(weights);
    std::vector<float> scale(1);
    ASSERT_TRUE(unpack_ternary_blocks(kind, bytes, trits, scale).ok());
    std::vector<std::int8_t> expected(weights);
    expected[12] = -1;
    expected[63] = 1;
    EXPECT_EQ(trits, expected);
    EXPECT_EQ(scale[0], 0.5F);
  }
}

TEST(CheckpointCodes, InterleavedBlocksOfBothSizes) {
  std::mt19937_64 random(3);
  for (const std::size_t block : {64U, 128U}) {
    const auto trits = random_trits(6 * block, 0.3, random);
    std::vector<std::uint8_t> bytes(trits.size() / 4);
    for (std::size_t i = 0; i < trits.size(); ++i) {
      const std::size_t group = i % block / (block / 4);
      const std::size_t at = i / block * (block / 4) + i % (block / 4);
      bytes[at] = static_cast<std::uint8_t>(bytes[at] | (trits[i] + 1) << (6 - 2 * group));
    }
    std::vector<std::int8_t> back(trits.size());
    ASSERT_TRUE(unpack_interleaved_codes(bytes, block, back).ok());
    EXPECT_EQ(back, trits);
    bytes[37] |= 0x0C;
    const Status status = unpack_interleaved_codes(bytes, block, back);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ErrorCode::kEncoding);
    EXPECT_EQ(status.error().offset, 37U);
  }
}

TEST(CheckpointCodes, NamesOfBlocks) {
  EXPECT_EQ(parse_ternary_blocks("tq1_0").value(), TernaryBlocks::kTq1);
  EXPECT_EQ(parse_ternary_blocks("tq2_0").value(), TernaryBlocks::kTq2);
  EXPECT_EQ(parse_ternary_blocks("q2_0").value(), TernaryBlocks::kQ2);
  EXPECT_EQ(parse_ternary_blocks("q2_0_g128").value(), TernaryBlocks::kQ2Wide);
  EXPECT_FALSE(parse_ternary_blocks("i2_s").ok());
}

}  // namespace
}  // namespace tfmbs
