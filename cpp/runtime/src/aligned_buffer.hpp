// Scratch memory aligned to a cache line, which grows and is reused; its contents do not survive
// growth.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::runtime {

template <typename T>
class AlignedBuffer {
 public:
  T* reserve(std::size_t count) {
    if (count > capacity_) {
      memory_.reset(static_cast<T*>(::operator new(count * sizeof(T), kAlignment)));
      capacity_ = count;
    }
    return memory_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{kernels::kScratchAlignment};
  struct Delete {
    void operator()(T* memory) const noexcept { ::operator delete(memory, kAlignment); }
  };
  std::unique_ptr<T[], Delete> memory_;
  std::size_t capacity_{0};
};

}  // namespace tfmbs::runtime
