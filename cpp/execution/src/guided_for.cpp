#include "tfmbs/execution/guided_for.hpp"

#include <algorithm>
#include <atomic>

namespace tfmbs::execution {

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

}  // namespace tfmbs::execution
