// What this core can do at most, to divide the kernels' figures by: 8-bit dot products from
// registers, and reading memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tfmbs::bench {

// Multiplications and additions (one item a pair) done by one call; 0 where the CPU lacks the
// instruction.
[[nodiscard]] std::size_t dot_products_avx512() noexcept;  // vpdpbusd, 512 bits
[[nodiscard]] std::size_t dot_products_avx2() noexcept;    // vpmaddubsw and vpaddw, 256 bits

// Reads every cache line; returns something that depends on them.
[[nodiscard]] std::uint64_t read(const void* data, std::size_t bytes) noexcept;

}  // namespace tfmbs::bench
