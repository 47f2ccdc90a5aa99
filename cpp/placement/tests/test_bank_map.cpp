#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>

#include "tfmbs/format/limits.hpp"
#include "tfmbs/placement/bank_map.hpp"

namespace tfmbs::placement {

// The default device: Bank A of 1,024 words; a layer of 15 outputs on one tile takes `depth` words.
class BankMapTest : public ::testing::Test {
 protected:
  Status enter(LayerId id, std::uint64_t depth, std::uint64_t mask = 1,
               std::optional<std::uint64_t> address = std::nullopt) {
    return map.enter(id, "layer" + std::to_string(id), 15, depth, mask, address, evicted);
  }
  BankMap::Admission admit(LayerId id, std::uint64_t serial = 1) {
    BankMap::Admission admission;
    EXPECT_TRUE(map.admit(id, serial, admission));
    return admission;
  }

  static void forget_windows(BankMap& map) { ++map.era_; }
  // Everything that decides what the map will do.
  [[nodiscard]] std::string describe() const {
    std::map<LayerId, std::string> tenants;
    for (const auto& [id, tenant] : map.tenants_) {
      tenants[id] = std::to_string(tenant.loaded) + " " + std::to_string(tenant.serial) + " at " +
                    std::to_string(tenant.word) + ", used " + std::to_string(tenant.last_use) +
                    ", window " + std::to_string(tenant.window.word) + " + " +
                    std::to_string(tenant.window.words) + " of " +
                    std::to_string(tenant.window_era);
    }
    std::string text = std::to_string(map.clock_) + " " + std::to_string(map.era_) + "; ";
    for (const auto& [id, tenant] : tenants) text += std::to_string(id) + ": " + tenant + "; ";
    std::set<LayerId> occupants(map.occupants_.begin(), map.occupants_.end());
    for (const LayerId id : occupants) text += std::to_string(id) + " ";
    return text;
  }

  BankMap map{Geometry{}};
  std::vector<LayerId> evicted;
};

namespace {

TEST_F(BankMapTest, FirstFitThenHits) {
  ASSERT_TRUE(enter(1, 784));
  ASSERT_TRUE(enter(2, 60));
  EXPECT_EQ(admit(1).placement, (Placement{1, 0, 784, false}));
  EXPECT_EQ(admit(2).placement, (Placement{1, 784, 60, false}));
  EXPECT_TRUE(admit(1).hit);
  EXPECT_TRUE(admit(2).hit);
}

TEST_F(BankMapTest, NewWeightsAreAMissInPlace) {
  ASSERT_TRUE(enter(1, 784));
  EXPECT_FALSE(admit(1, 1).hit);
  const auto again = admit(1, 2);
  EXPECT_FALSE(again.hit);
  EXPECT_EQ(again.placement.first_word, 0U);
  EXPECT_TRUE(admit(1, 2).hit);
}

TEST_F(BankMapTest, LeastRecentlyUsedIsEvictedAndPinnedIsNot) {
  for (LayerId id = 1; id <= 3; ++id) {
    ASSERT_TRUE(enter(id, 300));
    admit(id);
  }
  admit(1);
  ASSERT_TRUE(map.set_pinned(2, true));
  ASSERT_TRUE(enter(4, 300));
  EXPECT_EQ(admit(4).evicted, std::vector<LayerId>{3});  // 2 is older, but pinned
  EXPECT_TRUE(admit(2).hit);
  EXPECT_FALSE(admit(3).hit);
}

TEST_F(BankMapTest, LayersOnDisjointTilesShareWords) {
  ASSERT_TRUE(enter(1, 1000, 0b0011));
  ASSERT_TRUE(enter(2, 1000, 0b1100));
  EXPECT_EQ(admit(1).placement.first_word, 0U);
  const auto second = admit(2);
  EXPECT_EQ(second.placement.first_word, 0U);
  EXPECT_TRUE(second.evicted.empty());
}

TEST_F(BankMapTest, WhatNeverFitsStreamsThroughHalfABank) {
  ASSERT_TRUE(enter(1, 600));
  ASSERT_TRUE(enter(2, 2000));
  admit(1);
  const auto streamed = admit(2);
  EXPECT_TRUE(streamed.placement.streamed);
  EXPECT_EQ(streamed.evicted, std::vector<LayerId>{1});  // 424 free words are less than half
  EXPECT_EQ(streamed.placement.words, 1024U);
  EXPECT_FALSE(admit(2).hit);
}

TEST_F(BankMapTest, StreamingAroundPinnedLayersAndNoRoomAtAll) {
  ASSERT_TRUE(enter(1, 1000));
  ASSERT_TRUE(enter(2, 2000));
  admit(1);
  ASSERT_TRUE(map.set_pinned(1, true));
  EXPECT_EQ(admit(2).placement, (Placement{1, 1000, 24, true}));
  ASSERT_TRUE(enter(3, 10));
  ASSERT_TRUE(map.set_pinned(3, true));
  admit(3);
  BankMap::Admission none;
  const auto refused =
      map.admit(2, 1, none);  // 14 words are less than one activation word's depths
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kPlacement);
  EXPECT_TRUE(admit(1).hit);
  EXPECT_TRUE(admit(3).hit);
}

TEST_F(BankMapTest, GivenAddressesAreKeptAndAutomaticLayersMakeWay) {
  ASSERT_TRUE(enter(1, 500));
  admit(1);
  ASSERT_TRUE(enter(2, 500, 1, 0x1000 + 4 * 100));
  EXPECT_EQ(evicted, std::vector<LayerId>{1});
  EXPECT_EQ(admit(2).placement.first_word, 100U);
  const auto moved = admit(1);  // words 0 to 99 and 600 to 1,023 are left: no room for 500
  EXPECT_TRUE(moved.placement.streamed);
  EXPECT_EQ(moved.placement.first_word, 600U);
}

TEST_F(BankMapTest, BadAddressesAreRefused) {
  ASSERT_TRUE(enter(1, 100, 1, 0x1000));
  const auto overlap = enter(2, 100, 1, 0x1000 + 4 * 99);
  ASSERT_FALSE(overlap.ok());
  EXPECT_NE(overlap.error().message.find("'layer2'"), std::string::npos);
  EXPECT_NE(overlap.error().message.find("'layer1'"), std::string::npos);
  EXPECT_TRUE(enter(3, 100, 2, 0x1000 + 4 * 99).ok());  // another tile
  for (const std::uint64_t address : {0x0FFCULL, 0x1002ULL, 0x2000ULL, 0x9000ULL, ~0ULL - 3}) {
    EXPECT_FALSE(enter(4, 15, 1, address).ok()) << address;
  }
  EXPECT_FALSE(enter(4, 100, 1, 0x1000 + 4 * 925).ok());  // one word too many
  EXPECT_TRUE(enter(4, 100, 1, 0x1000 + 4 * 924).ok());   // exactly the bank's end
  EXPECT_FALSE(enter(5, 1025, 4, 0x1000).ok());           // larger than the bank
}

// 2^24 * 2^40 outputs on 15 lanes would take 0 words of 64 bits.
TEST_F(BankMapTest, LayersWhoseWordsCannotBeCountedAreRefused) {
  constexpr std::uint64_t kTooMany = kMaxOutputs + 1;
  EXPECT_TRUE(map.enter(1, "largest", kMaxOutputs, kMaxDepth, 1, std::nullopt, evicted).ok());
  EXPECT_EQ(map.tenant(1).words, kMaxDepth * ((kMaxOutputs + 14) / 15));
  for (const auto& [outputs, depth] : {std::pair{kTooMany, std::uint64_t{1}},
                                       {std::uint64_t{1}, kMaxDepth + 1},
                                       {std::uint64_t{1} << 62, std::uint64_t{1} << 24},
                                       {std::uint64_t{1} << 62, std::uint64_t{1} << 63},
                                       {~std::uint64_t{0}, ~std::uint64_t{0}}}) {
    for (const std::optional<std::uint64_t> address : {std::optional<std::uint64_t>{}, {0x1000}}) {
      const auto refused = map.enter(2, "vast", outputs, depth, 1, address, evicted);
      ASSERT_FALSE(refused.ok()) << outputs << " x " << depth;
      EXPECT_EQ(refused.error().code, ErrorCode::kPlacement);
      EXPECT_NE(refused.error().message.find("'vast' is of " + std::to_string(outputs)),
                std::string::npos);
    }
  }
}

TEST_F(BankMapTest, LeavingGivesTheSpaceBack) {
  ASSERT_TRUE(enter(1, 1000));
  admit(1);
  map.leave(1);
  ASSERT_TRUE(enter(2, 1000));
  const auto admission = admit(2);
  EXPECT_EQ(admission.placement.first_word, 0U);
  EXPECT_TRUE(admission.evicted.empty());
}

TEST_F(BankMapTest, OverwritingFromOutsideEvicts) {
  ASSERT_TRUE(enter(1, 100));
  admit(1);
  EXPECT_TRUE(map.overwrite(1, 100, 5).empty());
  EXPECT_TRUE(map.overwrite(2, 0, 5).empty());
  EXPECT_EQ(map.overwrite(1, 99, 5), std::vector<LayerId>{1});
  EXPECT_FALSE(admit(1).hit);
}

TEST_F(BankMapTest, AWindowWidensWhenItsNeighboursWordsAreOverwritten) {
  ASSERT_TRUE(enter(1, 300));
  ASSERT_TRUE(enter(2, 5000));
  admit(1);
  const auto beside = admit(2);
  EXPECT_TRUE(beside.placement.streamed);
  EXPECT_EQ(admit(2).placement, beside.placement);
  EXPECT_EQ(map.overwrite(1, 0, 1), std::vector<LayerId>{1});
  EXPECT_EQ(admit(2).placement.words, beside.placement.words + 300);
}

TEST_F(BankMapTest, WhatOthersTookSinceIsNotPutBack) {
  ASSERT_TRUE(enter(1, 600));
  admit(1);
  ASSERT_TRUE(enter(2, 600));
  const auto failed = admit(2);
  ASSERT_EQ(failed.evicted, std::vector<LayerId>{1});
  ASSERT_TRUE(enter(3, 600));
  ASSERT_EQ(admit(3).evicted, std::vector<LayerId>{2});
  std::vector<LayerId> still;
  map.undo(2, failed, [&still](LayerId id) { still.push_back(id); });
  EXPECT_EQ(still, std::vector<LayerId>{1});
  EXPECT_TRUE(admit(3).hit);
}

// A map that remembers windows does as one that looks at all layers each time.
TEST_F(BankMapTest, RememberedWindowsAreWhatALookAtAllWouldFind) {
  constexpr std::uint64_t kSeed = 20261123;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  std::mt19937_64 random(kSeed);
  const auto below = [&](std::uint64_t limit) { return random() % limit; };
  std::size_t streamed = 0;
  std::size_t refused = 0;
  for (int round = 0; round < 40; ++round) {
    map = BankMap{Geometry{}};
    std::set<LayerId> present;
    for (int step = 0; step < 400; ++step) {
      const LayerId id = 1 + below(8);
      const std::uint64_t mask = 1 + below(3);
      if (!present.contains(id)) {
        const auto address = below(6) == 0
                                 ? std::optional(Geometry{}.bank_a_base(0) + 4 * below(1024))
                                 : std::nullopt;
        if (enter(id, 1 + below(below(2) == 0 ? 1024 : 3000), mask, address)) present.insert(id);
        continue;
      }
      const std::uint64_t action = below(40);
      if (action == 0) {
        map.leave(id);
        present.erase(id);
      } else if (action == 1) {
        (void)map.set_pinned(id, below(4) != 0);
      } else if (action == 2) {
        const auto before = describe();
        BankMap::Admission admission;
        if (map.admit(id, 2, admission)) {
          map.undo(id, admission, [](LayerId) { ADD_FAILURE() << "its place is free"; });
        }
        ASSERT_EQ(describe(), before);
      } else if (action == 3) {
        map.overwrite(mask, static_cast<std::uint32_t>(below(1024)), 64);
      } else {
        BankMap thorough = map;
        forget_windows(thorough);
        const std::uint64_t serial = below(2);
        BankMap::Admission expected;
        BankMap::Admission found;
        const bool fits = map.admit(id, serial, found).ok();
        ASSERT_EQ(thorough.admit(id, serial, expected).ok(), fits);
        if (!fits) {
          ++refused;
          continue;
        }
        EXPECT_EQ(found.placement, expected.placement);
        EXPECT_EQ(found.hit, expected.hit);
        EXPECT_EQ(found.evicted, expected.evicted);
        if (found.placement.streamed) ++streamed;
      }
    }
  }
  EXPECT_GT(streamed, 1000U);
  EXPECT_GT(refused, 0U);
}

}  // namespace
}  // namespace tfmbs::placement
