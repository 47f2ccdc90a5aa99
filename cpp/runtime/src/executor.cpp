#include "tfmbs/runtime/executor.hpp"

#include <atomic>

namespace tfmbs::runtime {
namespace {

const SerialExecutor kSerial;
std::atomic<const Executor*> process{&kSerial};

}  // namespace

const Executor& process_executor() noexcept { return *process.load(std::memory_order_acquire); }

void set_process_executor(const Executor& executor) noexcept {
  process.store(&executor, std::memory_order_release);
}

}  // namespace tfmbs::runtime
