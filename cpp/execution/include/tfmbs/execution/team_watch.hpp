// Whether a team of threads is worth waiting for. A fork-join team (OpenMP's) waits for each of its
// threads to come, also for one that no core runs: where there is more to run than cores, a product
// of a hundred microseconds then takes a scheduler's time slice, ten milliseconds.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#pragma GCC visibility push(default)

namespace tfmbs::execution {

// Watches how long callers wait after their own share. A team that comes late is left alone for a
// while, longer each time; calls that find it in time shorten that again. Safe from several
// threads.
class TeamWatch {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;

  // Of a call: it began, its own share was done, and all shares were.
  struct Call {
    Time begin;
    Time own_end;
    Time end;
  };

  [[nodiscard]] bool worth_it(Time now) const noexcept {
    return now.time_since_epoch().count() >= alone_until_.load(std::memory_order_relaxed);
  }
  void note(const Call& call) noexcept;

  // A share is as large as another, or is taken in portions of what is left: who waits for longer
  // than twice its own share waits for a thread that does not run.
  static constexpr int kShares = 2;
  static constexpr Duration kGrace = std::chrono::microseconds(300);
  static constexpr Duration kLeastAlone = std::chrono::milliseconds(20);
  static constexpr Duration kMostAlone = std::chrono::milliseconds(1280);
  static constexpr std::uint32_t kCallsToForgive = 200;

 private:
  std::atomic<Duration::rep> alone_until_{0};  // since the clock's epoch
  std::atomic<Duration::rep> alone_for_{0};    // at the next late call: twice that
  std::atomic<std::uint32_t> in_time_{0};      // calls since the last late one, or halving
};

}  // namespace tfmbs::execution

#pragma GCC visibility pop
