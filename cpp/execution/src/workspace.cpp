#include "tfmbs/execution/workspace.hpp"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace tfmbs::execution {
namespace {

constexpr std::size_t kLeastBlock = std::size_t{1} << 14;

constexpr std::size_t aligned(std::size_t bytes) noexcept {
  return (bytes + Workspace::kAlignment - 1) / Workspace::kAlignment * Workspace::kAlignment;
}

Workspace& thread_workspace() noexcept {
  thread_local Workspace workspace;
  return workspace;
}

}  // namespace

Workspace::Mark Workspace::begin() noexcept {
  ++depth_;
  return now_;
}

void* Workspace::take_bytes(std::size_t bytes) {
  bytes = std::max(aligned(bytes), kAlignment);
  if (blocks_.empty() || blocks_[now_.block].bytes - now_.used < bytes) {
    // Blocks after the current one hold no piece.
    const std::size_t next = blocks_.empty() ? 0 : now_.block + 1;
    if (next == blocks_.size() || blocks_[next].bytes < bytes) {
      // The first block is as large as what the call before took in all.
      const std::size_t size = std::max({bytes, kLeastBlock, blocks_.empty() ? peak_ : 0});
      blocks_.resize(next);
      blocks_.reserve(next + 1);
      std::unique_ptr<std::byte, Free> memory(
          static_cast<std::byte*>(::operator new(size, std::align_val_t{kAlignment})));
      blocks_.push_back({std::move(memory), size});
    }
    now_.block = next;
    now_.used = 0;
  }
  void* const piece = blocks_[now_.block].memory.get() + now_.used;
  now_.used += bytes;
  now_.taken += bytes;
  peak_ = std::max(peak_, now_.taken);
  return piece;
}

// Several blocks become one at the next call, of the size that this call took; memory beyond the
// cap goes back.
void Workspace::end(const Mark& mark) noexcept {
  now_ = mark;
  if (--depth_ > 0) return;
  if (blocks_.size() > 1 || capacity() > kCap) blocks_.clear();
  if (peak_ > kCap) peak_ = 0;
}

std::size_t Workspace::capacity() const noexcept {
  std::size_t bytes = 0;
  for (const Block& block : blocks_) bytes += block.bytes;
  return bytes;
}

Scratch::Scratch() noexcept : workspace_(thread_workspace()), mark_(workspace_.begin()) {}

std::size_t workspace_bytes() noexcept { return thread_workspace().capacity(); }

}  // namespace tfmbs::execution
