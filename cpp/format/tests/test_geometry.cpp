#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "tfmbs/format/geometry.hpp"

namespace tfmbs {
namespace {

TEST(Geometry, DefaultMap) {
  const Geometry geometry;
  EXPECT_EQ(geometry, Geometry::make(4, 15, 1024).value());
  for (std::uint32_t t = 0; t < 4; ++t) {
    EXPECT_EQ(geometry.results_base(t), 0x100U + 0x40U * t);
    EXPECT_EQ(geometry.bank_a_base(t), 0x1000U + 0x2000U * t);
    EXPECT_EQ(geometry.bank_b_base(t), 0x2000U + 0x2000U * t);
  }
  EXPECT_EQ(geometry.broadcast_base(), 0x9000U);
  EXPECT_EQ(geometry.end(), 0xA000U);
  EXPECT_EQ(geometry.all_tiles(), 0xFU);
}

TEST(Geometry, OddMapByHand) {
  // 3 tiles of 40 lanes: results 160 bytes -> 0xC0 apart, 0x100 + 3 * 0xC0 = 0x340 -> banks at
  // 0x1000. 3 words a depth, 700 depths: 8,400 bytes -> 0x3000 a bank.
  const Geometry geometry = Geometry::make(3, 40, 700).value();
  EXPECT_EQ(geometry.words_per_depth(), 3U);
  EXPECT_EQ(geometry.results_base(2), 0x100U + 2 * 0xC0);
  EXPECT_EQ(geometry.bank_a_base(0), 0x1000U);
  EXPECT_EQ(geometry.bank_b_base(0), 0x4000U);
  EXPECT_EQ(geometry.bank_a_base(2), 0x1000U + 2 * 0x6000);
  EXPECT_EQ(geometry.broadcast_base(), 0x13000U);
  // 64 tiles of 16 lanes: 0x100 + 64 * 0x40 = 0x1100 -> banks at 0x2000.
  EXPECT_EQ(Geometry::make(64, 16, 15).value().first_bank(), 0x2000U);
  EXPECT_EQ(Geometry::make(64, 16, 15).value().all_tiles(), ~std::uint64_t{0});
}

TEST(Geometry, Limits) {
  EXPECT_TRUE(Geometry::make(1, 1, 15).ok());
  EXPECT_TRUE(Geometry::make(64, 15, 1024).ok());
  EXPECT_TRUE(Geometry::make(1, 1, Geometry::kMaxBankDepth).ok());
  EXPECT_TRUE(Geometry::make(64, 15, Geometry::kMaxBankDepth).ok());
  EXPECT_TRUE(Geometry::make(1, Geometry::kMaxLanes, 1024).ok());
  struct Shape {
    std::uint64_t tiles, lanes, depth;
  };
  constexpr std::uint64_t kHuge = ~std::uint64_t{0};
  for (const Shape& s :
       {Shape{0, 15, 1024}, Shape{65, 15, 1024}, Shape{kHuge, 15, 1024}, Shape{4, 0, 1024},
        Shape{4, 65537, 1024}, Shape{4, kHuge, 1024}, Shape{4, 15, 0}, Shape{4, 15, 14},
        Shape{4, 15, (1U << 22) + 1}, Shape{4, 15, kHuge}, Shape{4, (1ULL << 32) + 15, 1024},
        // Each field in range, but the map beyond 32 bits; the last one's bank wraps to few bytes.
        Shape{64, 16, 1U << 22}, Shape{1, 65536, 1U << 22}, Shape{1, 15 * 1025, 1U << 22}}) {
    const auto made = Geometry::make(s.tiles, s.lanes, s.depth);
    ASSERT_FALSE(made.ok()) << s.tiles << " " << s.lanes << " " << s.depth;
    EXPECT_EQ(made.error().code, ErrorCode::kGeometry);
    EXPECT_FALSE(made.error().message.empty());
  }
}

// Walks every word address of the map and some beyond, against a list of the regions.
void expect_map(const Geometry& geometry) {
  const auto expect_region = [&](Region region, std::uint32_t tile, std::uint64_t base,
                                 std::uint32_t words, std::uint64_t room) {
    for (std::uint32_t w = 0; w < words; ++w) {
      const auto at = geometry.locate(base + 4ULL * w, 4);
      ASSERT_TRUE(at.ok()) << std::hex << base + 4ULL * w;
      ASSERT_EQ(at.value().region, region);
      ASSERT_EQ(at.value().tile, tile);
      ASSERT_EQ(at.value().word, w);
    }
    EXPECT_TRUE(geometry.locate(base, 4ULL * words).ok());
    EXPECT_EQ(geometry.locate(base, 4ULL * words + 4).error().code, ErrorCode::kAddress);
    EXPECT_EQ(geometry.locate(base + 4ULL * (words - 1), 8).error().code, ErrorCode::kAddress);
    for (std::uint64_t gap = base + 4ULL * words; gap < base + room; gap += 4) {
      const auto at = geometry.locate(gap, 4);
      ASSERT_FALSE(at.ok()) << std::hex << gap;
      ASSERT_EQ(at.error().code, ErrorCode::kAddress);
      ASSERT_EQ(at.error().offset, gap);
    }
  };
  const std::uint32_t tiles = geometry.tiles();
  for (std::uint32_t t = 0; t < tiles; ++t) {
    const std::uint64_t next = t + 1 < tiles ? geometry.results_base(t + 1) : geometry.first_bank();
    expect_region(Region::kResults, t, geometry.results_base(t), geometry.lanes(),
                  next - geometry.results_base(t));
    expect_region(Region::kBankA, t, geometry.bank_a_base(t), geometry.bank_a_words(),
                  geometry.bank_stride());
    expect_region(Region::kBankB, t, geometry.bank_b_base(t), geometry.bank_b_words(),
                  geometry.bank_stride());
  }
  expect_region(Region::kBroadcast, 0, geometry.broadcast_base(), geometry.bank_b_words(), 0x2000);
}

TEST(Geometry, EveryAddressOfManyShapes) {
  for (const std::uint64_t tiles : {1U, 3U, 4U, 64U}) {
    for (const std::uint64_t lanes : {1U, 7U, 15U, 16U, 40U}) {
      for (const std::uint64_t depth : {15U, 31U, 1024U}) {
        SCOPED_TRACE(std::to_string(tiles) + " x " + std::to_string(lanes) + " x " +
                     std::to_string(depth));
        expect_map(Geometry::make(tiles, lanes, depth).value());
      }
    }
  }
}

TEST(Geometry, RefusedAddresses) {
  const Geometry geometry;
  constexpr std::uint64_t kHuge = ~std::uint64_t{0};
  struct Access {
    std::uint64_t address, bytes;
  };
  for (const Access& a :
       {Access{0x101, 4}, Access{0x102, 4}, Access{0x103, 4}, Access{0x100, 0}, Access{0x100, 2},
        Access{0x100, 5}, Access{0, 4}, Access{0xFC, 4}, Access{0xFC, 8}, Access{0x13C, 4},
        Access{0xFFC, 4}, Access{0xA000, 4}, Access{kHuge - 3, 4}, Access{kHuge, 4},
        Access{0x1000, kHuge - 3}, Access{0x9000, 0x1004}, Access{0x1FFC, 8}}) {
    const auto at = geometry.locate(a.address, a.bytes);
    ASSERT_FALSE(at.ok()) << std::hex << a.address << " " << a.bytes;
    EXPECT_EQ(at.error().code, ErrorCode::kAddress);
    EXPECT_EQ(at.error().offset, a.address);
    EXPECT_NE(at.error().message.find("0x"), std::string::npos);
  }
}

}  // namespace
}  // namespace tfmbs
