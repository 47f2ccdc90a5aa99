// Two devices that must be alike in all that anybody can see.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "tfmbs/device/fabric.hpp"

namespace tfmbs::device {

inline void expect_same_bytes(Fabric& a, Fabric& b) {
  const Geometry& geometry = a.config().geometry;
  const auto compare = [&](std::uint64_t address, std::uint32_t words) {
    std::vector<std::uint32_t> left(words);
    std::vector<std::uint32_t> right(words);
    ASSERT_TRUE(a.read(address, left).ok());
    ASSERT_TRUE(b.read(address, right).ok());
    EXPECT_EQ(left, right) << "at " << address;
  };
  for (std::uint32_t t = 0; t < geometry.tiles(); ++t) {
    compare(geometry.bank_a_base(t), geometry.bank_a_words());
    compare(geometry.bank_b_base(t), geometry.bank_b_words());
    compare(geometry.results_base(t), geometry.lanes());
  }
}

// A resident layer's words of Bank A.
inline void expect_same_weights(Fabric& a, Fabric& b, const placement::LayerShape& shape,
                                const LayerProfile& profile) {
  const Geometry& geometry = a.config().geometry;
  const auto first =
      static_cast<std::uint32_t>((profile.weight_address.value() - geometry.bank_a_base(0)) / 4);
  const placement::Schedule schedule(
      geometry, shape, {.tile_mask = profile.tile_mask, .first_word = first, .words = 0});
  for (std::uint32_t slot = 0; slot < schedule.pass_tiles(0); ++slot) {
    std::vector<std::uint32_t> left(schedule.slot_passes(slot) * schedule.tile_pass_words());
    std::vector<std::uint32_t> right(left.size());
    const std::uint64_t address = geometry.bank_a_base(schedule.tile(slot)) + 4ULL * first;
    ASSERT_TRUE(a.read(address, left).ok());
    ASSERT_TRUE(b.read(address, right).ok());
    EXPECT_EQ(left, right) << profile.name << " on tile " << schedule.tile(slot);
  }
}

inline void expect_same_device(Fabric& a, Fabric& b) {
  const Profile pa = a.profile().value();
  const Profile pb = b.profile().value();
  for (const auto& field : fabric::kCounterFields) {
    EXPECT_EQ(pa.total.*field.member, pb.total.*field.member) << field.name;
  }
  ASSERT_EQ(pa.tiles.size(), pb.tiles.size());
  for (std::size_t t = 0; t < pa.tiles.size(); ++t) {
    for (const auto& field : fabric::kTileCounterFields) {
      EXPECT_EQ(pa.tiles[t].*field.member, pb.tiles[t].*field.member) << t << " " << field.name;
    }
  }
  ASSERT_EQ(pa.layers.size(), pb.layers.size());
  for (std::size_t i = 0; i < pa.layers.size(); ++i) {
    const LayerProfile& left = pa.layers[i];
    const LayerProfile& right = pb.layers[i];
    EXPECT_EQ(left.name, right.name);
    EXPECT_EQ(left.counters, right.counters) << left.name;
    EXPECT_EQ(left.sparsity, right.sparsity) << left.name;
    EXPECT_EQ(left.tile_mask, right.tile_mask) << left.name;
    EXPECT_EQ(left.weight_address, right.weight_address) << left.name;
    EXPECT_EQ(left.resident, right.resident) << left.name;
  }
  expect_same_bytes(a, b);
}

}  // namespace tfmbs::device
