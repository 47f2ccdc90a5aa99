// What this machine can do at most, to divide the kernels' figures by: products from registers, and
// reading memory. C linkage, so that benchmarks/suite can load what bench_kernels links.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// Multiplications and additions (one item a pair) done by one call of some microseconds on the
// calling thread; 0 where the CPU lacks the instructions.
std::size_t tfmbs_dot_products_avx512() noexcept;        // vpdpbusd, 512 bits
std::size_t tfmbs_dot_products_avxvnni() noexcept;       // vpdpbusd, 256 bits
std::size_t tfmbs_dot_products_avx2() noexcept;          // vpmaddubsw, vpmaddwd, vpaddd, 256 bits
std::size_t tfmbs_trit_dot_products_avx2() noexcept;     // vpmaddubsw, vpaddw: where 16 bits hold
std::size_t tfmbs_bit_plane_products_avx512() noexcept;  // AND, ternary logic, 2 popcounts, 2 adds
std::size_t tfmbs_fp32_products_avx512() noexcept;       // vfmadd231ps, 512 bits
std::size_t tfmbs_fp32_products_avx2() noexcept;         // vfmadd231ps, 256 bits

// Reads every cache line; returns something that depends on them.
std::uint64_t tfmbs_read(const void* data, std::size_t bytes) noexcept;

using tfmbs_ceiling = std::size_t (*)() noexcept;

// Items a second of `threads` threads that call `ceiling` at once for about `seconds`; 0 where it
// returns 0 or the arguments are none (no threads, no time).
double tfmbs_rate(tfmbs_ceiling ceiling, unsigned threads, double seconds) noexcept;

// Bytes a second of `threads` threads that read `bytes` bytes again and again for about `seconds`,
// each a part of its own; at least once.
double tfmbs_read_rate(const void* data, std::size_t bytes, unsigned threads,
                       double seconds) noexcept;

}  // extern "C"
