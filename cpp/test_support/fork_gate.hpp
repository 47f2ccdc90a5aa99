// Lets tests fork beside threads that allocate. POSIX only.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

namespace tfmbs::testing {

#if defined(__SANITIZE_ADDRESS__)  // GCC
inline constexpr bool kAllocatorSurvivesFork = false;
#elif defined(__has_feature)
inline constexpr bool kAllocatorSurvivesFork = !__has_feature(address_sanitizer);
#else
inline constexpr bool kAllocatorSurvivesFork = true;
#endif

// glibc takes malloc's locks over a fork; AddressSanitizer's allocator (as of GCC 12) does not, so
// the child of a fork in the middle of another thread's allocation waits for ever at its own first
// one. Where that allocator serves, threads hold allocating() while they allocate or free, and
// forking() is given once none does. Elsewhere neither holds anything: forks fall where they will.
class ForkGate {
 public:
  using Hold = std::unique_lock<std::mutex>;

  [[nodiscard]] Hold allocating() {
    if constexpr (kAllocatorSurvivesFork) return {};
    while (fork_waits_) std::this_thread::yield();  // a mutex alone would starve the fork
    return Hold(mutex_);
  }

  // Parent and child each release their own.
  [[nodiscard]] Hold forking() {
    if constexpr (kAllocatorSurvivesFork) return {};
    fork_waits_ = true;
    Hold hold(mutex_);
    fork_waits_ = false;
    return hold;
  }

 private:
  std::mutex mutex_;
  std::atomic<bool> fork_waits_{false};
};

}  // namespace tfmbs::testing
