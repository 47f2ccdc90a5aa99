// What the CPU says of its caches.
#pragma once

#include <cstddef>

#pragma GCC visibility push(default)

namespace tfmbs::kernels {

// Bytes of the last-level cache that a core reaches (of its own complex, where a package has
// several); 8 MiB where the CPU does not say. Asked once.
[[nodiscard]] std::size_t last_level_cache_bytes() noexcept;

}  // namespace tfmbs::kernels

#pragma GCC visibility pop
