// What this machine can do at most, to divide the kernels' figures by: products from registers
// (peaks.hpp), and reading memory. C linkage, so that benchmarks/suite can load what bench_kernels
// links.
#pragma once

#include <cstddef>
#include <cstdint>

#include "peaks.hpp"

#pragma GCC visibility push(default)

extern "C" {

// Reads every cache line; returns something that depends on them.
std::uint64_t tfmbs_read(const void* data, std::size_t bytes) noexcept;

using tfmbs_ceiling = std::size_t (*)() noexcept;

// The peak <product>/<variant> of peaks.hpp; null where this library has none.
tfmbs_ceiling tfmbs_peak(const char* name) noexcept;

// Items a second of `threads` threads that call `ceiling` at once for about `seconds`; 0 where it
// returns 0 or the arguments are none (no threads, no time).
double tfmbs_rate(tfmbs_ceiling ceiling, unsigned threads, double seconds) noexcept;

// Bytes a second of `threads` threads that read `bytes` bytes again and again for about `seconds`,
// each a part of its own; at least once.
double tfmbs_read_rate(const void* data, std::size_t bytes, unsigned threads,
                       double seconds) noexcept;

}  // extern "C"

#pragma GCC visibility pop
