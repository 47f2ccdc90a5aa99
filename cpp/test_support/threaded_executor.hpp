// Every range on a thread of its own, whatever its size.
#pragma once

#include <cstddef>
#include <exception>
#include <thread>
#include <vector>

#include "tfmbs/execution/executor.hpp"

namespace tfmbs::execution {

class ThreadedExecutor final : public Executor {
 public:
  explicit ThreadedExecutor(std::size_t threads) : threads_(threads) {}
  [[nodiscard]] std::size_t threads() const noexcept override { return threads_; }
  void parallel_for(std::size_t count, std::size_t /*grain*/, RangeFunction body) const override {
    std::vector<std::exception_ptr> thrown(threads_);
    {
      std::vector<std::jthread> running;
      for (std::size_t t = 0; t < threads_; ++t) {
        const std::size_t begin = count * t / threads_;
        const std::size_t end = count * (t + 1) / threads_;
        if (begin == end) continue;
        running.emplace_back([=, &thrown] {
          try {
            body(begin, end);
          } catch (...) {
            thrown[t] = std::current_exception();
          }
        });
      }
    }
    for (const auto& one : thrown) {
      if (one) std::rethrow_exception(one);
    }
  }

 private:
  std::size_t threads_;
};

}  // namespace tfmbs::execution
