#include "failing_new.hpp"

#include <cstdlib>
#include <new>

namespace {

constexpr std::size_t kMost = std::size_t{1} << 39;

thread_local bool armed = false;
thread_local bool refused = false;
thread_local std::size_t left = 0;

void* allocate(std::size_t size, std::size_t alignment) {
  if (armed) {
    if (left == 0) {
      refused = true;
      throw std::bad_alloc();
    }
    --left;
  }
  if (size > kMost) throw std::bad_alloc();  // the sanitizers would end the program
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, size == 0 ? 1 : size) != 0) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t size) { return allocate(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace tfmbs::testing {

FailingNew::FailingNew(std::size_t after) noexcept {
  left = after;
  refused = false;
  armed = true;
}
FailingNew::~FailingNew() { stop(); }
bool FailingNew::stop() noexcept {
  armed = false;
  return refused;
}

}  // namespace tfmbs::testing
