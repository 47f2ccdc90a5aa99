// Work on torch's own pool, with torch's settings (torch.set_num_threads), for as long as its
// threads come in time (TeamWatch); else the caller does it alone.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>

#include "tfmbs/execution/executor.hpp"
#include "tfmbs/execution/team_watch.hpp"

namespace tfmbs {

class TorchExecutor final : public execution::Executor {
 public:
  [[nodiscard]] std::size_t threads() const noexcept override {
    try {
      return torch::stable::get_num_threads();
    } catch (...) {
      return 1;  // torch cannot tell
    }
  }
  void parallel_for(std::size_t count, std::size_t grain,
                    execution::RangeFunction body) const override {
    if (count == 0) return;
    if (count <= grain) {  // what parallel_for would do, without its price
      body(0, count);
      return;
    }
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    if (!watch().worth_it(begin)) {
      body(0, count);
      return;
    }
    const auto caller = std::this_thread::get_id();
    auto own_end = begin;  // written by the caller alone
    torch::stable::parallel_for(
        0, static_cast<std::int64_t>(count), static_cast<std::int64_t>(grain),
        [&](std::int64_t first, std::int64_t last) {
          body(static_cast<std::size_t>(first), static_cast<std::size_t>(last));
          if (std::this_thread::get_id() == caller) own_end = Clock::now();
        });
    if (own_end != begin) watch().note({begin, own_end, Clock::now()});
  }

 private:
  static execution::TeamWatch& watch() noexcept {
    static execution::TeamWatch of_process;
    return of_process;
  }
};

}  // namespace tfmbs
