// Work that threads take as they become free.
#pragma once

#include <cstddef>

#include "tfmbs/execution/executor.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::execution {

// Calls body on disjoint ranges that cover [0, count), several times a thread, each half of a
// thread's even share of what is left: a thread that is slower, or begins later, takes less. One of
// `count` should be worth some microseconds. An exception of a body is rethrown, when the other
// threads have run what is left.
void guided_for(const Executor& executor, std::size_t count, RangeFunction body);

}  // namespace tfmbs::execution

#pragma GCC visibility pop
