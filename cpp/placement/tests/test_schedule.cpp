#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "tfmbs/placement/schedule.hpp"

namespace tfmbs::placement {
namespace {

using Chunks = std::vector<std::pair<std::uint64_t, std::uint32_t>>;  // first depth, depths

Chunks chunks_of(const Schedule& schedule) {
  Chunks chunks;
  for (std::uint64_t c = 0; c < schedule.chunks(); ++c) {
    chunks.emplace_back(schedule.chunk_begin(c), schedule.chunk_depths(c));
  }
  return chunks;
}

TEST(Schedule, CutsDepthInWholeWords) {
  const Geometry geometry = Geometry::make(2, 15, 40).value();
  const Schedule schedule(geometry, {30, 70, 1}, {.tile_mask = 3, .words = 40, .streamed = true});
  EXPECT_TRUE(schedule.ping_pong());
  EXPECT_EQ(chunks_of(schedule), (Chunks{{0, 15}, {15, 15}, {30, 15}, {45, 15}, {60, 10}}));
  EXPECT_EQ(schedule.scale_groups(), 1U);
  EXPECT_TRUE(schedule.begins_scale_group(0));
  EXPECT_FALSE(schedule.begins_scale_group(4));
  EXPECT_FALSE(schedule.ends_scale_group(3));
  EXPECT_TRUE(schedule.ends_scale_group(4));
}

TEST(Schedule, CutsDepthAtTheEndOfScaleGroups) {
  const Geometry geometry = Geometry::make(2, 15, 100).value();
  const Schedule schedule(geometry, {30, 70, 6, 32}, {.tile_mask = 3, .words = 70});
  EXPECT_EQ(chunks_of(schedule), (Chunks{{0, 32}, {32, 32}, {64, 6}}));
  EXPECT_EQ(schedule.scale_groups(), 3U);
  for (std::uint64_t c = 0; c < 3; ++c) {
    EXPECT_EQ(schedule.scale_group(c), c);
    EXPECT_TRUE(schedule.begins_scale_group(c));
    EXPECT_TRUE(schedule.ends_scale_group(c));
    EXPECT_EQ(schedule.weight_word(0, c), 32 * c);
  }
  EXPECT_EQ(schedule.activation_words(0), 18U);
  EXPECT_EQ(schedule.activation_words(2), 6U);
  EXPECT_EQ(schedule.activation_word(1), 18U);
}

TEST(Schedule, CutsScaleGroupsThatNoChunkHolds) {
  const Geometry geometry = Geometry::make(2, 15, 40).value();
  const Schedule schedule(geometry, {30, 100, 1, 32},
                          {.tile_mask = 3, .first_word = 7, .words = 33, .streamed = true});
  EXPECT_TRUE(schedule.ping_pong());
  EXPECT_EQ(chunks_of(schedule), (Chunks{{0, 15},
                                         {15, 15},
                                         {30, 2},
                                         {32, 15},
                                         {47, 15},
                                         {62, 2},
                                         {64, 15},
                                         {79, 15},
                                         {94, 2},
                                         {96, 4}}));
  const std::vector<bool> begins{true, false, false, true, false, false, true, false, false, true};
  const std::vector<bool> ends{false, false, true, false, false, true, false, false, true, true};
  for (std::uint64_t c = 0; c < schedule.chunks(); ++c) {
    EXPECT_EQ(schedule.begins_scale_group(c), begins[c]) << c;
    EXPECT_EQ(schedule.ends_scale_group(c), ends[c]) << c;
    EXPECT_EQ(schedule.scale_group(c), c / 3) << c;
    EXPECT_EQ(schedule.weight_word(0, c), 7 + c % 2 * 15) << c;
  }
}

TEST(Schedule, AScaleGroupOfAllDepthsIsNone) {
  const Geometry geometry = Geometry::make(2, 15, 40).value();
  const Placement placement{.tile_mask = 3, .words = 40, .streamed = true};
  for (const std::uint32_t group_depth : {70U, 71U, 128U}) {
    const Schedule schedule(geometry, {30, 70, 1, group_depth}, placement);
    EXPECT_EQ(schedule.scale_groups(), 1U);
    EXPECT_EQ(chunks_of(schedule), chunks_of(Schedule(geometry, {30, 70, 1}, placement)));
  }
}

}  // namespace
}  // namespace tfmbs::placement
