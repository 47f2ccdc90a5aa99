#include "tfmbs/runtime/executor.hpp"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <new>

namespace tfmbs::runtime {
namespace {

std::atomic<const Executor*>& process() noexcept {
  alignas(SerialExecutor) static std::byte memory[sizeof(SerialExecutor)];
  static const auto* const serial = ::new (memory) SerialExecutor;  // outlives every thread
  static std::atomic<const Executor*> executor{serial};
  return executor;
}

}  // namespace

void guided_for(const Executor& executor, std::size_t count, RangeFunction body) {
  const std::size_t threads = std::min(executor.threads(), count);
  std::atomic<std::size_t> next{0};
  // However many ranges the executor makes of it, whoever comes takes of what is left.
  executor.parallel_for(threads, 1, [&](std::size_t /*begin*/, std::size_t /*end*/) {
    std::size_t begin = next.load(std::memory_order_relaxed);
    while (begin < count) {
      const std::size_t portion = std::max<std::size_t>(1, (count - begin) / (2 * threads));
      if (next.compare_exchange_weak(begin, begin + portion, std::memory_order_relaxed)) {
        body(begin, begin + portion);
        begin = next.load(std::memory_order_relaxed);
      }
    }
  });
}

const Executor& process_executor() noexcept { return *process().load(std::memory_order_acquire); }

void set_process_executor(const Executor& executor) noexcept {
  process().store(&executor, std::memory_order_release);
}

}  // namespace tfmbs::runtime
