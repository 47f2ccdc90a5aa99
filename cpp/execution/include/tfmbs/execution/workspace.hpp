// Scratch memory of a call: taken in pieces, given back as a whole. A thread keeps one workspace
// between calls, so a call in steady state allocates nothing; what it keeps is capped.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <vector>

#pragma GCC visibility push(default)

namespace tfmbs::execution {

class Workspace {
 public:
  // Of every piece: a cache line.
  static constexpr std::size_t kAlignment = 64;
  // Bytes that a workspace keeps once its pieces are given back.
  static constexpr std::size_t kCap = std::size_t{8} << 20;

  Workspace() = default;
  Workspace(Workspace&&) noexcept = default;
  Workspace& operator=(Workspace&&) noexcept = default;

  // `count` values, uninitialized. Throws std::bad_alloc.
  template <typename T>
  [[nodiscard]] std::span<T> take(std::size_t count) {
    static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);
    if (count > kMostBytes / sizeof(T)) throw std::bad_alloc();
    return {static_cast<T*>(take_bytes(count * sizeof(T))), count};
  }

  [[nodiscard]] std::size_t capacity() const noexcept;

 private:
  friend class Scratch;
  static constexpr std::size_t kMostBytes = static_cast<std::size_t>(-1) / 4;

  struct Free {
    void operator()(std::byte* memory) const noexcept {
      ::operator delete(memory, std::align_val_t{kAlignment});
    }
  };
  struct Block {
    std::unique_ptr<std::byte, Free> memory;
    std::size_t bytes{0};
  };
  // What is taken at some moment.
  struct Mark {
    std::size_t block{0};      // the one that pieces come from,
    std::byte* next{nullptr};  // its first free byte (null: no block yet),
    std::size_t room{0};       // how many there are,
    std::size_t taken{0};      // and the bytes of all pieces
  };

  [[nodiscard]] static constexpr std::size_t aligned(std::size_t bytes) noexcept {
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  [[nodiscard]] void* take_bytes(std::size_t bytes) {
    bytes = aligned(bytes);
    if (now_.room < bytes || now_.next == nullptr) enter_block(bytes);
    void* const piece = now_.next;
    now_.next += bytes;
    now_.room -= bytes;
    now_.taken += bytes;
    return piece;
  }
  // A block with that much room, and all of it free. Throws std::bad_alloc.
  void enter_block(std::size_t bytes);
  [[nodiscard]] Mark begin() noexcept {
    ++depth_;
    return now_;
  }
  void end(const Mark& mark) noexcept;

  std::vector<Block> blocks_;
  Mark now_;
  // Of now_.taken at the ends of scratches since the outermost began; of the last one, after it.
  std::size_t peak_{0};
  std::size_t depth_{0};  // scratches that live
};

// The calling thread's workspace, for as long as this object lives; the pieces taken through it are
// given back at its end. Scratches of one thread end in the opposite of the order in which they
// began.
class Scratch {
 public:
  Scratch() noexcept;
  ~Scratch() { workspace_.end(mark_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <typename T>
  [[nodiscard]] std::span<T> take(std::size_t count) {
    return workspace_.take<T>(count);
  }

 private:
  Workspace& workspace_;
  Workspace::Mark mark_;
};

// Bytes that the calling thread's workspace keeps now.
[[nodiscard]] std::size_t workspace_bytes() noexcept;

}  // namespace tfmbs::execution

#pragma GCC visibility pop
