// How work is spread over threads. This library owns no thread: the caller brings an executor.
#pragma once

#include <cstddef>

#pragma GCC visibility push(default)

namespace tfmbs::execution {

// A borrowed reference to a callable void(begin, end); it allocates nothing.
class RangeFunction {
 public:
  template <typename Callable>
  RangeFunction(const Callable& callable) noexcept  // NOLINT(google-explicit-constructor)
      : object_(&callable), call_([](const void* object, std::size_t begin, std::size_t end) {
          (*static_cast<const Callable*>(object))(begin, end);
        }) {}
  void operator()(std::size_t begin, std::size_t end) const { call_(object_, begin, end); }

 private:
  const void* object_;
  void (*call_)(const void*, std::size_t, std::size_t);
};

class Executor {
 public:
  Executor() = default;
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;
  virtual ~Executor() = default;

  // At least 1.
  [[nodiscard]] virtual std::size_t threads() const noexcept = 0;
  // Calls body on disjoint ranges that cover [0, count), none shorter than grain but the last;
  // returns when all have run. An exception of a body is rethrown.
  virtual void parallel_for(std::size_t count, std::size_t grain, RangeFunction body) const = 0;
};

class SerialExecutor final : public Executor {
 public:
  [[nodiscard]] std::size_t threads() const noexcept override { return 1; }
  void parallel_for(std::size_t count, std::size_t /*grain*/, RangeFunction body) const override {
    if (count != 0) body(0, count);
  }
};

// For callers without an executor of their own: the thread pool of the framework in this process
// (torch's, once its ops are loaded), else the calling thread.
[[nodiscard]] const Executor& process_executor() noexcept;
// `executor` must live as long as the process.
void set_process_executor(const Executor& executor) noexcept;

}  // namespace tfmbs::execution

#pragma GCC visibility pop
