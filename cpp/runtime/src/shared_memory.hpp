// Memory that another process can write.
#pragma once

#include <cstdint>

namespace tfmbs::runtime {

// Whether the memory's first page is mapped shared (Linux; elsewhere it is taken for private). A
// few microseconds for ordinary memory.
[[nodiscard]] bool is_shared_memory(const void* data, std::uint64_t bytes);

}  // namespace tfmbs::runtime
