// Memory aligned to a cache line, from operator new.
//
// Aligned by hand: glibc's aligned allocation before 2.38 asks for more than it keeps, so a block
// that was freed does not fit the same request again (glibc bug 14581). Each temporary matrix then
// leaves a hole as large as itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace tfmbs {

inline constexpr std::size_t kCacheLine = 64;

#ifdef __SANITIZE_ADDRESS__
// AddressSanitizer then sees the first byte behind the block.
[[nodiscard]] inline void* allocate_aligned(std::size_t bytes) {
  return ::operator new(bytes, std::align_val_t{kCacheLine});
}
inline void release_aligned(void* memory) noexcept {
  ::operator delete(memory, std::align_val_t{kCacheLine});
}
#else
// Throws std::bad_alloc.
[[nodiscard]] inline void* allocate_aligned(std::size_t bytes) {
  if (bytes > static_cast<std::size_t>(-1) - kCacheLine) throw std::bad_alloc();
  // operator new aligns to a pointer at least, so that one fits before the block: it names the
  // start.
  static_assert(__STDCPP_DEFAULT_NEW_ALIGNMENT__ >= sizeof(void*));
  auto* const start = static_cast<std::byte*>(::operator new(bytes + kCacheLine));
  std::byte* const block =
      start + kCacheLine - reinterpret_cast<std::uintptr_t>(start) % kCacheLine;
  reinterpret_cast<void**>(block)[-1] = start;
  return block;
}
inline void release_aligned(void* memory) noexcept {
  if (memory != nullptr) ::operator delete(static_cast<void**>(memory)[-1]);
}
#endif

}  // namespace tfmbs
