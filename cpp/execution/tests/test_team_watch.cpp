// When a team is waited for, and when not: of times that the test makes up.
#include <gtest/gtest.h>

#include <chrono>

#include "tfmbs/execution/team_watch.hpp"

namespace tfmbs::execution {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using Duration = TeamWatch::Duration;

class TeamWatchTest : public ::testing::Test {
 protected:
  // A call of 100 us of its own, and so long a wait.
  void call(Duration wait) {
    const auto begin = now;
    const auto own_end = begin + microseconds(100);
    now = own_end + wait;
    watch.note({begin, own_end, now});
  }
  // How long the team is left alone from now on.
  Duration alone() const {
    Duration length{0};
    while (!watch.worth_it(now + length)) length += milliseconds(1);
    return length;
  }

  TeamWatch watch;
  TeamWatch::Time now{std::chrono::hours(1)};
};

constexpr Duration kLate = milliseconds(12);

TEST_F(TeamWatchTest, ATeamInTimeIsWorthIt) {
  EXPECT_TRUE(watch.worth_it(now));
  for (int i = 0; i < 1000; ++i) {
    call(microseconds(i % 400));  // to twice its own share, and the grace
    ASSERT_TRUE(watch.worth_it(now));
  }
}

TEST_F(TeamWatchTest, ALateOneIsLeftAloneLongerEachTime) {
  for (Duration expected = TeamWatch::kLeastAlone; expected <= TeamWatch::kMostAlone;
       expected *= 2) {
    call(kLate);
    EXPECT_EQ(alone(), expected);
    now += alone();
    for (int i = 0; i < 10; ++i)
      call(microseconds(10));  // now and then in time: no reason to trust
    EXPECT_TRUE(watch.worth_it(now));
  }
  call(kLate);
  EXPECT_EQ(alone(), TeamWatch::kMostAlone);
}

TEST_F(TeamWatchTest, CallsInTimeAreRemembered) {
  for (int i = 0; i < 4; ++i) call(kLate);
  EXPECT_EQ(alone(), 8 * TeamWatch::kLeastAlone);
  now += alone();
  for (std::uint32_t i = 0; i < 2 * TeamWatch::kCallsToForgive; ++i) call(microseconds(10));
  call(kLate);
  EXPECT_EQ(alone(), 4 * TeamWatch::kLeastAlone);
  now += alone();
  for (std::uint32_t i = 0; i < 8 * TeamWatch::kCallsToForgive; ++i) call(microseconds(10));
  call(kLate);
  EXPECT_EQ(alone(), TeamWatch::kLeastAlone);
}

// Work of seconds may wait for as long.
TEST_F(TeamWatchTest, LongWorkMayWaitForLong) {
  const auto own_end = now + std::chrono::seconds(1);
  watch.note({now, own_end, own_end + milliseconds(1900)});
  EXPECT_TRUE(watch.worth_it(own_end + milliseconds(1900)));
}

}  // namespace
}  // namespace tfmbs::execution
