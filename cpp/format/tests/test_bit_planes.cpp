#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "random_trits.hpp"
#include "tfmbs/format/bit_planes.hpp"

namespace tfmbs {
namespace {

TEST(BitPlanes, RoundTripAndLayout) {
  std::mt19937_64 random(3);
  for (const std::size_t columns :
       {1U, 7U, 8U, 9U, 63U, 64U, 65U, 511U, 512U, 513U, 1000U, 1024U, 1537U}) {
    constexpr std::size_t kRows = 3;
    SCOPED_TRACE("columns " + std::to_string(columns));
    const auto trits = random_trits(kRows * columns, 0.5, random);
    auto packed = pack_bit_planes(trits, kRows, columns);
    ASSERT_TRUE(packed.ok());
    const BitPlaneMatrix& planes = packed.value();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(planes.view().words) % 64, 0U);
    EXPECT_EQ(planes.bytes(), kRows * bit_plane_blocks(columns) * 128);

    // Bit for bit, padding included: trit k is bit k%64 of word (k%512)/64 of block k/512.
    for (std::size_t r = 0; r < kRows; ++r) {
      const std::uint64_t* row = planes.view().row(r);
      for (std::size_t k = 0; k < bit_plane_blocks(columns) * 512; ++k) {
        const std::size_t word = k / 512 * 16 + k % 512 / 64;
        const int trit = k < columns ? trits[r * columns + k] : 0;
        ASSERT_EQ(row[word] >> (k % 64) & 1, trit != 0 ? 1U : 0U) << r << " " << k;
        ASSERT_EQ(row[word + 8] >> (k % 64) & 1, trit < 0 ? 1U : 0U) << r << " " << k;
        ASSERT_EQ(planes.view().trit(r, k), trit);
      }
    }
    std::vector<std::int8_t> again(trits.size(), 9);
    ASSERT_TRUE(unpack_bit_planes(planes.view(), again).ok());
    EXPECT_EQ(again, trits);
    EXPECT_EQ(planes.view().slice(1, 2).trit(0, columns - 1), trits[2 * columns - 1]);
  }
}

TEST(BitPlanes, EveryValueThatIsNoTritIsNamed) {
  for (int value = -128; value <= 127; ++value) {
    for (const std::size_t at : {0U, 8U, 69U, 70U, 139U}) {
      std::vector<std::int8_t> trits(140, 1);
      trits[at] = static_cast<std::int8_t>(value);
      const auto packed = pack_bit_planes(trits, 2, 70);
      ASSERT_EQ(packed.ok(), value >= -1 && value <= 1);
      if (!packed.ok()) {
        EXPECT_EQ(packed.error().code, ErrorCode::kInvalidArgument);
        EXPECT_EQ(packed.error().offset, at);
      }
    }
  }
}

TEST(BitPlanes, WrongSizes) {
  std::vector<std::int8_t> trits(12);
  EXPECT_FALSE(pack_bit_planes(trits, 3, 5).ok());
  EXPECT_FALSE(pack_bit_planes(trits, 0, 12).ok());
  EXPECT_FALSE(pack_bit_planes(trits, 12, 0).ok());
  // 2^63 * 2 + 12 wraps to 12.
  EXPECT_FALSE(pack_bit_planes(trits, std::size_t{1} << 63, 2).ok());
  const BitPlaneMatrix planes(3, 4);
  std::vector<std::int8_t> small(11);
  EXPECT_EQ(unpack_bit_planes(planes.view(), small).error().code, ErrorCode::kInvalidArgument);
}

TEST(BitPlanes, EmptyMatrices) {
  EXPECT_TRUE(pack_bit_planes({}, 0, 100).ok());
  EXPECT_TRUE(pack_bit_planes({}, 100, 0).ok());
  const BitPlaneMatrix none(5, 0);
  EXPECT_EQ(none.bytes(), 0U);
  EXPECT_TRUE(unpack_bit_planes(none.view(), {}).ok());
}

TEST(BitPlanes, ImpossibleSizesThrowBadAlloc) {
  constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max();
  EXPECT_THROW(BitPlaneMatrix(kMax, 1), std::bad_alloc);
  EXPECT_THROW(BitPlaneMatrix(1, kMax), std::bad_alloc);
}

}  // namespace
}  // namespace tfmbs
