// Memory that runs out on demand: the program's operator new, replaced.
#pragma once

#include <cstddef>

namespace tfmbs::testing {

// From now on the calling thread's allocation number `after` (0: the next) throws std::bad_alloc,
// and those after it until stop() or the end of the object.
class FailingNew {
 public:
  explicit FailingNew(std::size_t after) noexcept;
  ~FailingNew();
  FailingNew(const FailingNew&) = delete;
  FailingNew& operator=(const FailingNew&) = delete;
  // Whether any allocation was refused.
  bool stop() noexcept;
};

}  // namespace tfmbs::testing
