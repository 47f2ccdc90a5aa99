// A 64-bit content hash at memory speed, to see whether a weight changed. Not cryptographic: any
// change of one word changes it; independent contents collide with probability about 2^-64.
#pragma once

#include <cstddef>
#include <cstdint>

#pragma GCC visibility push(default)

namespace tfmbs::kernels {

[[nodiscard]] std::uint64_t fingerprint(const void* data, std::size_t bytes) noexcept;

}  // namespace tfmbs::kernels

#pragma GCC visibility pop
