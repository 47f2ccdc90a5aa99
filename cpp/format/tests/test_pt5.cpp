#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "random_trits.hpp"
#include "tfmbs/format/pt5.hpp"

namespace tfmbs {
namespace {

// The definition, without tables.
std::uint8_t naive_code(const std::int8_t* trits, std::size_t count) {
  int code = 0;
  int power = 1;
  for (std::size_t i = 0; i < count; ++i, power *= 3) {
    code += power * (trits[i] == 0 ? 0 : trits[i] == 1 ? 1 : 2);
  }
  return static_cast<std::uint8_t>(code);
}

TEST(Pt5, PublishedCodes) {
  struct Case {
    std::array<std::int8_t, 5> trits;
    std::uint8_t code;
  };
  for (const Case& c :
       {Case{{0, 0, 0, 0, 0}, 0}, Case{{1, 0, 0, 0, 0}, 1}, Case{{-1, 0, 0, 0, 0}, 2},
        Case{{-1, 1, 0, 0, 0}, 5}, Case{{-1, -1, -1, -1, -1}, 242}, Case{{0, 0, 0, 0, 1}, 81}}) {
    std::array<std::uint8_t, 1> byte{};
    ASSERT_TRUE(pack_pt5(c.trits, byte).ok());
    EXPECT_EQ(byte[0], c.code);
  }
}

TEST(Pt5, AllCodesRoundTrip) {
  // Each code in every position of a long run, so that both the wide path and the tail see it.
  for (std::uint32_t code = 0; code < kPt5Codes; ++code) {
    for (std::size_t count = 1; count <= 4; ++count) {
      const std::vector<std::uint8_t> bytes(count, static_cast<std::uint8_t>(code));
      std::vector<std::int8_t> trits(5 * count);
      ASSERT_TRUE(unpack_pt5(bytes, trits).ok());
      for (std::size_t b = 0; b < count; ++b) {
        EXPECT_EQ(naive_code(trits.data() + 5 * b, 5), code);
      }
      std::vector<std::uint8_t> again(count, 0xEE);
      ASSERT_TRUE(pack_pt5(trits, again).ok());
      EXPECT_EQ(again, bytes);
    }
  }
}

TEST(Pt5, EveryLengthRoundTrips) {
  std::mt19937_64 random(1);
  for (std::size_t size = 0; size <= 200; ++size) {
    SCOPED_TRACE("size " + std::to_string(size));
    const auto trits = random_trits(size, 0.3, random);
    std::vector<std::uint8_t> bytes(pt5_bytes(size), 0xEE);
    ASSERT_TRUE(pack_pt5(trits, bytes).ok());
    for (std::size_t b = 0; b < bytes.size(); ++b) {
      EXPECT_EQ(bytes[b], naive_code(trits.data() + 5 * b, std::min<std::size_t>(5, size - 5 * b)));
    }
    std::vector<std::int8_t> again(size, 7);
    ASSERT_TRUE(unpack_pt5(bytes, again).ok());
    EXPECT_EQ(again, trits);
  }
}

TEST(Pt5, UnpackNamesTheFirstFault) {
  constexpr std::size_t kBytes = 40;
  for (std::uint32_t fault = kPt5Codes; fault < 256; ++fault) {
    for (std::size_t at = 0; at < kBytes; ++at) {
      std::vector<std::uint8_t> bytes(kBytes, 242);
      bytes[kBytes - 1] = 255;  // a later fault, which must not be the one named
      bytes[at] = static_cast<std::uint8_t>(fault);
      std::vector<std::int8_t> trits(5 * kBytes - 2);
      const Status status = unpack_pt5(bytes, trits);
      ASSERT_FALSE(status.ok());
      EXPECT_EQ(status.error().code, ErrorCode::kEncoding);
      EXPECT_EQ(status.error().offset, at);
      EXPECT_NE(status.error().message.find(std::to_string(at)), std::string::npos);
    }
  }
}

TEST(Pt5, PackNamesTheFirstValueThatIsNoTrit) {
  for (int value = -128; value <= 127; ++value) {
    for (const std::size_t at : {0U, 4U, 5U, 31U, 36U, 37U}) {
      std::vector<std::int8_t> trits(38, -1);
      trits[at] = static_cast<std::int8_t>(value);
      std::vector<std::uint8_t> bytes(pt5_bytes(trits.size()));
      const Status status = pack_pt5(trits, bytes);
      if (value >= -1 && value <= 1) {
        EXPECT_TRUE(status.ok());
        continue;
      }
      ASSERT_FALSE(status.ok()) << value << " at " << at;
      EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
      EXPECT_EQ(status.error().offset, at);
    }
  }
}

TEST(Pt5, WrongSizes) {
  std::vector<std::int8_t> trits(11);
  for (const std::size_t size : {0U, 2U, 4U}) {
    std::vector<std::uint8_t> bytes(size);
    EXPECT_EQ(pack_pt5(trits, bytes).error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(unpack_pt5(bytes, trits).error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(FabricWord, CheckNamesTheFirstFaultByte) {
  constexpr std::size_t kWords = 21;
  constexpr std::uint64_t kBase = 0x1000;
  for (std::uint32_t byte = 0; byte < 4; ++byte) {
    for (std::uint32_t value = 0; value < 256; ++value) {
      for (const std::size_t at : {std::size_t{0}, std::size_t{7}, kWords - 1}) {
        std::vector<std::uint32_t> words(kWords, 0x00F2F2F2);
        words[at] = (words[at] & ~(0xFFU << (8 * byte))) | value << (8 * byte);
        const bool fits = byte == 3 ? value == 0 : value < kPt5Codes;
        EXPECT_EQ(is_fabric_word(words[at]), fits);
        const Status status = check_fabric_words(words, kBase);
        ASSERT_EQ(status.ok(), fits) << byte << " " << value;
        if (!fits) {
          EXPECT_EQ(status.error().code, ErrorCode::kEncoding);
          EXPECT_EQ(status.error().offset, kBase + 4 * at + byte);
        }
      }
    }
  }
  EXPECT_TRUE(check_fabric_words({}, 0).ok());
  // Several faults in one word: the lowest byte is named.
  const std::vector<std::uint32_t> words{0xFFF5F300};
  EXPECT_EQ(check_fabric_words(words, 0).error().offset, 1U);
}

TEST(FabricWord, MasksRoundTrip) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 2000; ++round) {
    const auto trits = random_trits(kTritsPerWord, 0.4, random);
    std::array<std::uint8_t, 3> bytes{};
    ASSERT_TRUE(pack_pt5(trits, bytes).ok());
    const std::uint32_t word = bytes[0] + bytes[1] * 0x100U + bytes[2] * 0x10000U;
    const WordMasks masks = word_masks(word);
    for (std::size_t i = 0; i < kTritsPerWord; ++i) {
      EXPECT_EQ((masks.nonzero >> i & 1) != 0, trits[i] != 0);
      EXPECT_EQ((masks.negative >> i & 1) != 0, trits[i] < 0);
    }
    EXPECT_EQ(word_from_masks(masks), word);
  }
}

TEST(ErrorCodes, HaveNames) {
  EXPECT_STREQ(error_code_name(ErrorCode::kInvalidArgument), "invalid_argument");
  EXPECT_STREQ(error_code_name(ErrorCode::kEncoding), "encoding");
  EXPECT_STREQ(error_code_name(ErrorCode::kGeometry), "geometry");
  EXPECT_STREQ(error_code_name(ErrorCode::kAddress), "address");
  EXPECT_STREQ(error_code_name(ErrorCode::kDescriptor), "descriptor");
  EXPECT_STREQ(error_code_name(ErrorCode::kPlacement), "placement");
  EXPECT_STREQ(error_code_name(ErrorCode::kClosed), "closed");
}

}  // namespace
}  // namespace tfmbs
