#include "tfmbs/execution/workspace.hpp"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace tfmbs::execution {
namespace {

constexpr std::size_t kLeastBlock = std::size_t{1} << 14;

Workspace& thread_workspace() noexcept {
  thread_local Workspace workspace;
  return workspace;
}

}  // namespace

void Workspace::enter_block(std::size_t bytes) {
  // Blocks after the current one hold no piece.
  const std::size_t next = now_.next == nullptr ? 0 : now_.block + 1;
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
  now_.next = blocks_[next].memory.get();
  now_.room = blocks_[next].bytes;
}

// Several blocks become one at the next call, of the size that this call took; memory beyond the
// cap goes back.
void Workspace::end(const Mark& mark) noexcept {
  peak_ = std::max(peak_, now_.taken);
  now_ = mark;
  if (--depth_ > 0) return;
  if (blocks_.size() == 1 && blocks_.front().bytes <= kCap) {
    now_ = {.next = blocks_.front().memory.get(), .room = blocks_.front().bytes};
  } else {
    blocks_.clear();
    now_ = {};
  }
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
