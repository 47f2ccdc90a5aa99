// Memory for weights. Where a product reads them from memory, page translations cost up to half of
// the bandwidth, so matrices of 128 KiB and more share huge pages (Linux): one that ends in the
// middle of a page is followed by the next, for a page of its own would often be half empty.
// Elsewhere, or where the system has no huge pages, it is as any memory. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

#pragma GCC visibility push(default)

namespace tfmbs::large_memory {

inline constexpr std::size_t kAlignment = 64;  // a cache line
inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Uninitialized, aligned to kAlignment. Throws std::bad_alloc. Precondition: bytes > 0.
[[nodiscard]] void* allocate(std::size_t bytes);
// What allocate(bytes) gave. Huge pages that nobody uses any more go back to the system.
void release(void* memory, std::size_t bytes) noexcept;

// Asks for huge pages for somebody else's memory that is about to be written for the first time: a
// fault for each 4 KiB of a fresh output of many megabytes takes longer than writing it. A hint;
// the mapping keeps it as long as it lives. Nothing happens below four huge pages, nor to memory
// outside.
void prefer_huge_pages(void* memory, std::size_t bytes) noexcept;

// Gives pages of a mapped file back to the system (Linux): those that lie whole in this memory are
// read from the file again when they are touched. Precondition: it is a mapping of a file that
// nobody writes to, or nobody reads it any more.
void forget_file_pages(void* memory, std::size_t bytes) noexcept;

// Around fork(), on the thread that forks, so that the child finds this memory whole: what calls
// them allocates nothing in between. Both do nothing where memory is not shared.
void before_fork();
void after_fork();  // in the parent, and in the child

namespace detail {

// Some bytes from an offset on.
struct Part {
  std::size_t offset{0};
  std::size_t bytes{0};
  friend constexpr bool operator==(const Part&, const Part&) = default;
};

// The whole huge pages of the memory at an address; none of less than four huge pages.
[[nodiscard]] constexpr Part whole_huge_pages(std::uintptr_t address, std::size_t bytes) noexcept {
  if (bytes < 4 * kHugePage) return {};
  const std::size_t ahead = (kHugePage - address % kHugePage) % kHugePage;
  return {ahead, (bytes - ahead) / kHugePage * kHugePage};
}

}  // namespace detail

}  // namespace tfmbs::large_memory

#pragma GCC visibility pop
