// Which layout layers are packed in, as the weights of the process come and go.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>

#include "tfmbs/kernels/cache.hpp"
#include "tfmbs/kernels/kernels.hpp"
#include "tfmbs/linear/packing_policy.hpp"

namespace tfmbs::linear {
namespace {

constexpr Activation kModes[] = {Activation::kTernary, Activation::kInt8};

class PackingPolicy : public ::testing::Test {
 protected:
  // The portable variant prefers another layout for weights that stream; others may not.
  PackingPolicy() : before_(kernels::active().name) {
    EXPECT_TRUE(kernels::select("portable").ok());
    set_weight_storage(WeightStorage::kAuto);
  }
  ~PackingPolicy() override {
    set_weight_storage(WeightStorage::kAuto);
    EXPECT_TRUE(kernels::select(before_).ok());
  }
  static bool streams() {
    const bool ternary =
        preferred_layout(Activation::kTernary) == mode_of(Activation::kTernary).layouts().streamed;
    const bool int8 =
        preferred_layout(Activation::kInt8) == mode_of(Activation::kInt8).layouts().streamed;
    EXPECT_EQ(ternary, int8);
    return ternary;
  }
  // Weights at two bits each that fill three quarters of the last-level cache.
  const std::uint64_t most = std::uint64_t{kernels::last_level_cache_bytes()} * 3;

 private:
  std::string before_;
};

TEST_F(PackingPolicy, TwoLayoutsAreToldApart) {
  for (const Activation mode : kModes) {
    EXPECT_NE(mode_of(mode).layouts().cached, mode_of(mode).layouts().streamed);
  }
}

TEST_F(PackingPolicy, StorageThatIsSetDecides) {
  const WeightShare all(most + 1);
  set_weight_storage(WeightStorage::kCached);
  EXPECT_EQ(weight_storage(), WeightStorage::kCached);
  EXPECT_FALSE(streams());
  set_weight_storage(WeightStorage::kAuto);
  EXPECT_TRUE(streams());
  {
    const WeightShare none;
    set_weight_storage(WeightStorage::kStreamed);
    EXPECT_TRUE(streams());
  }
}

TEST_F(PackingPolicy, StreamsAboveTheShareAndUntilThreeQuartersOfIt) {
  const std::uint64_t three_quarters = most / 4 * 3;
  {
    const WeightShare first(three_quarters - 1);
    EXPECT_FALSE(streams());
    {
      const WeightShare second(most - three_quarters + 1);  // the share itself
      EXPECT_FALSE(streams());
      {
        const WeightShare third(1);
        EXPECT_TRUE(streams());
      }
      EXPECT_TRUE(streams());
    }
    EXPECT_FALSE(streams());  // below three quarters
    {
      const WeightShare again(1);  // at three quarters, on the way up
      EXPECT_FALSE(streams());
      {
        const WeightShare rest(most);
        EXPECT_TRUE(streams());
      }
      EXPECT_TRUE(streams());  // at three quarters, on the way down
    }
    EXPECT_FALSE(streams());
  }
}

TEST_F(PackingPolicy, SharesMoveAndAreCountedOnce) {
  WeightShare share(most);
  WeightShare moved(std::move(share));
  {
    const WeightShare more(1);
    EXPECT_TRUE(streams());
  }
  {
    const WeightShare gone = std::move(moved);
  }
  EXPECT_FALSE(streams());
  WeightShare assigned;
  assigned = WeightShare(most + 1);
  EXPECT_TRUE(streams());
  assigned = WeightShare();
  EXPECT_FALSE(streams());
}

TEST(WeightStorageNames, RoundTrip) {
  for (const WeightStorage storage :
       {WeightStorage::kAuto, WeightStorage::kCached, WeightStorage::kStreamed}) {
    const auto parsed = parse_weight_storage(name_of(storage));
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(parsed.value(), storage);
  }
  const auto wrong = parse_weight_storage("hot");
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(wrong.error().message.find("'hot'"), std::string::npos);
}

}  // namespace
}  // namespace tfmbs::linear
