// Work that threads take as they become free: all of it once, in portions that shrink.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <stdexcept>
#include <thread>
#include <vector>

#include "tfmbs/execution/guided_for.hpp"
#include "threaded_executor.hpp"

namespace tfmbs::execution {
namespace {

// Runs everything on the calling thread, as one that has two would share it.
class Recorder final : public Executor {
 public:
  [[nodiscard]] std::size_t threads() const noexcept override { return 2; }
  void parallel_for(std::size_t count, std::size_t /*grain*/, RangeFunction body) const override {
    if (count != 0) body(0, count);
  }
};

TEST(GuidedFor, RunsEachOnce) {
  constexpr int kRepetitions = 50;  // for threads to meet
  for (const std::size_t threads : {1U, 2U, 3U, 8U}) {
    const ThreadedExecutor executor(threads);
    for (const std::size_t count : {0U, 1U, 2U, 3U, 7U, 8U, 9U, 100U, 1001U}) {
      std::vector<std::atomic<int>> runs(count);
      for (int repetition = 0; repetition < kRepetitions; ++repetition) {
        guided_for(executor, count, [&](std::size_t begin, std::size_t end) {
          ASSERT_LT(begin, end);
          ASSERT_LE(end, count);
          for (std::size_t i = begin; i < end; ++i) ++runs[i];
          std::this_thread::yield();
        });
      }
      for (const auto& one : runs) {
        ASSERT_EQ(one, kRepetitions) << threads << " threads, " << count;
      }
    }
  }
}

TEST(GuidedFor, PortionsShrinkToOne) {
  std::vector<std::size_t> portions;
  guided_for(Recorder{}, 100,
             [&](std::size_t begin, std::size_t end) { portions.push_back(end - begin); });
  EXPECT_EQ(portions.front(), 25U);  // a quarter of all, for two threads
  EXPECT_EQ(portions.back(), 1U);
  EXPECT_TRUE(std::is_sorted(portions.rbegin(), portions.rend()));
}

TEST(GuidedFor, OneRangeOfManyTakesAll) {
  std::size_t run = 0;
  guided_for(Recorder{}, 77, [&](std::size_t begin, std::size_t end) { run += end - begin; });
  EXPECT_EQ(run, 77U);
}

TEST(GuidedFor, ThrowsWhatABodyThrowsWhenTheOthersHaveEnded) {
  for (const std::size_t threads : {1U, 2U, 4U}) {
    std::atomic<int> running{0};
    EXPECT_THROW(guided_for(ThreadedExecutor(threads), 100,
                            [&](std::size_t begin, std::size_t end) {
                              ++running;
                              std::this_thread::yield();
                              --running;
                              if (begin <= 50 && 50 < end) throw std::runtime_error("no");
                            }),
                 std::runtime_error);
    EXPECT_EQ(running, 0);
  }
}

}  // namespace
}  // namespace tfmbs::execution
