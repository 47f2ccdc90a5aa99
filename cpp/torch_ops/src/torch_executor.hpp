// Work on torch's own pool, with torch's settings (torch.set_num_threads).
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstddef>
#include <cstdint>

#include "tfmbs/execution/executor.hpp"

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
    torch::stable::parallel_for(
        0, static_cast<std::int64_t>(count), static_cast<std::int64_t>(grain),
        [&body](std::int64_t begin, std::int64_t end) {
          body(static_cast<std::size_t>(begin), static_cast<std::size_t>(end));
        });
  }
};

}  // namespace tfmbs
