// Pipeline latencies of the engine, in cycles (docs/fabric.md, "Time line").
#pragma once

#include <cstdint>

#pragma GCC visibility push(default)

namespace tfmbs::fabric {

inline constexpr std::uint64_t kStartCycles = 4;  // decode, activation fetch, mask, weight fetch
inline constexpr std::uint64_t kDrainCycles = 3;  // multiply, accumulate, commit

}  // namespace tfmbs::fabric

#pragma GCC visibility pop
