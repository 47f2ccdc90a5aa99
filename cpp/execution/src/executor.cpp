#include "tfmbs/execution/executor.hpp"

#include <atomic>
#include <cstddef>
#include <new>

namespace tfmbs::execution {
namespace {

std::atomic<const Executor*>& process() noexcept {
  alignas(SerialExecutor) static std::byte memory[sizeof(SerialExecutor)];
  static const auto* const serial = ::new (memory) SerialExecutor;  // outlives every thread
  static std::atomic<const Executor*> executor{serial};
  return executor;
}

}  // namespace

const Executor& process_executor() noexcept { return *process().load(std::memory_order_acquire); }

void set_process_executor(const Executor& executor) noexcept {
  process().store(&executor, std::memory_order_release);
}

}  // namespace tfmbs::execution
