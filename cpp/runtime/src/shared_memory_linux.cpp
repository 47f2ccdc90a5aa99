#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>

#include "shared_memory.hpp"

namespace tfmbs::runtime {
namespace {

// Whether a page belongs to a file, or to memory that is shared without one: the kernel's
// Documentation/admin-guide/mm/pagemap.rst. True where that cannot be read.
bool may_be_shared(std::uintptr_t address) noexcept {
  constexpr int kFileOrShared = 61;
  const long page = sysconf(_SC_PAGESIZE);
  const int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (file < 0 || page <= 0) return true;
  std::uint64_t entry = 0;
  const auto at = static_cast<off_t>(address / static_cast<std::uintptr_t>(page) * sizeof entry);
  const bool known = pread(file, &entry, sizeof entry, at) == sizeof entry;
  close(file);
  return !known || (entry >> kFileOrShared & 1) != 0;
}

}  // namespace

// A line of /proc/self/maps: "7f00-7f01 rw-s ...". A private mapping of a file (memory-mapped
// checkpoints) has a "p" there.
bool is_shared_memory(const void* data, std::uint64_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  if (bytes == 0 || !may_be_shared(address)) return false;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    std::uintptr_t first = 0;
    std::uintptr_t end = 0;
    const char* const last = line.data() + line.size();
    const auto [dash, bad] = std::from_chars(line.data(), last, first, 16);
    if (bad != std::errc{} || dash == last) continue;
    const auto [space, worse] = std::from_chars(dash + 1, last, end, 16);
    if (worse != std::errc{} || address < first || address >= end) continue;
    constexpr std::size_t kShareFlag = 4;  // behind the space and "rwx"
    return last - space > static_cast<std::ptrdiff_t>(kShareFlag) && space[kShareFlag] == 's';
  }
  return false;
}

}  // namespace tfmbs::runtime
