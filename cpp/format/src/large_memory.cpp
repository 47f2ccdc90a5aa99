#include "tfmbs/format/large_memory.hpp"

#include <new>

#include "aligned_memory.hpp"

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <mutex>
#include <vector>
#endif

namespace tfmbs::large_memory {
namespace {

#ifdef __linux__
constexpr std::size_t kLeastShared = std::size_t{1} << 17;
// Of addresses; pages come when written. Each region is larger than the one before, up to the most:
// the rest behind its last piece takes up to a huge page.
constexpr std::size_t kLeastRegion = std::size_t{64} << 20;
constexpr std::size_t kMostDoublings = 3;

constexpr std::size_t round_up(std::size_t bytes, std::size_t unit) noexcept {
  return (bytes + unit - 1) / unit * unit;
}

// Regions of whole huge pages, handed out in pieces: the smallest free range that a piece fits.
class Pool {
 public:
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

  void* allocate(std::size_t bytes) {
    if (bytes > std::numeric_limits<std::size_t>::max() / 2) throw std::bad_alloc();
    bytes = round_up(bytes, kAlignment);
    const std::lock_guard lock(mutex_);
    // Between two free ranges of a region there is a piece: no release() needs more room.
    free_.reserve(pieces_ + regions_.size() + 2);
    auto best = free_.end();
    for (auto range = free_.begin(); range != free_.end(); ++range) {
      if (range->size() >= bytes && (best == free_.end() || range->size() < best->size())) {
        best = range;
      }
    }
    if (best == free_.end()) best = insert(add_region(bytes));
    std::byte* const piece = best->begin;
    best->begin += bytes;
    if (best->size() == 0) free_.erase(best);
    ++pieces_;
    return piece;
  }

  void release(void* memory, std::size_t bytes) noexcept {
    auto* const begin = static_cast<std::byte*>(memory);
    const std::lock_guard lock(mutex_);
    --pieces_;
    const auto region = std::find_if(regions_.begin(), regions_.end(), [&](const Range& range) {
      return range.begin <= begin && begin < range.end;
    });
    auto range = insert({begin, begin + round_up(bytes, kAlignment)});
    const auto next = range + 1;
    if (next != free_.end() && next->begin == range->end && next->begin != region->end) {
      range->end = next->end;
      free_.erase(next);
    }
    if (range != free_.begin() && (range - 1)->end == range->begin &&
        range->begin != region->begin) {
      (range - 1)->end = range->end;
      range = free_.erase(range) - 1;
    }
    if (range->size() == region->size()) {
      munmap(region->begin, region->size());
      free_.erase(range);
      regions_.erase(region);
      return;
    }
    const auto offset = [&](const std::byte* at) {
      return static_cast<std::size_t>(at - region->begin);
    };
    const std::size_t first = round_up(offset(range->begin), kHugePage);
    const std::size_t last = offset(range->end) / kHugePage * kHugePage;
    if (first < last) madvise(region->begin + first, last - first, MADV_DONTNEED);
  }

 private:
  struct Range {
    std::byte* begin;
    std::byte* end;
    [[nodiscard]] std::size_t size() const noexcept {
      return static_cast<std::size_t>(end - begin);
    }
  };

  std::vector<Range>::iterator insert(Range range) {
    return free_.insert(
        std::upper_bound(free_.begin(), free_.end(), range,
                         [](const Range& a, const Range& b) { return a.begin < b.begin; }),
        range);
  }

  Range add_region(std::size_t bytes) {
    regions_.reserve(regions_.size() + 1);
    const std::size_t size = round_up(
        std::max(bytes, kLeastRegion << std::min(regions_.size(), kMostDoublings)), kHugePage);
    // Aligned by cutting off what is before and behind.
    void* mapped =
        mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    auto* const at = static_cast<std::byte*>(mapped);
    const std::size_t before = kHugePage - reinterpret_cast<std::uintptr_t>(mapped) % kHugePage;
    const Range region{at + before, at + before + size};
    munmap(at, before);
    if (before < kHugePage) munmap(region.end, kHugePage - before);
    madvise(region.begin, size, MADV_HUGEPAGE);
    regions_.push_back(region);
    return region;
  }

  std::mutex mutex_;
  std::vector<Range> regions_;
  std::vector<Range> free_;  // by address, neighbours in a region merged
  std::size_t pieces_{0};
};

// Never destroyed: weights may outlive every other object.
Pool& pool() {
  static Pool& pool = *new Pool;
  return pool;
}
#endif

}  // namespace

#ifdef __linux__
void* allocate(std::size_t bytes) {
  return bytes < kLeastShared ? allocate_aligned(bytes) : pool().allocate(bytes);
}
void release(void* memory, std::size_t bytes) noexcept {
  if (bytes < kLeastShared) return release_aligned(memory);
  pool().release(memory, bytes);
}
void prefer_huge_pages(void* memory, std::size_t bytes) noexcept {
  const auto [offset, size] =
      detail::whole_huge_pages(reinterpret_cast<std::uintptr_t>(memory), bytes);
  if (size > 0) madvise(static_cast<std::byte*>(memory) + offset, size, MADV_HUGEPAGE);
}
void forget_file_pages(void* memory, std::size_t bytes) noexcept {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t ahead = (page - reinterpret_cast<std::uintptr_t>(memory) % page) % page;
  if (bytes < ahead + page) return;
  madvise(static_cast<std::byte*>(memory) + ahead, (bytes - ahead) / page * page, MADV_DONTNEED);
}
void before_fork() { pool().lock(); }
void after_fork() { pool().unlock(); }
#else
void* allocate(std::size_t bytes) { return allocate_aligned(bytes); }
void release(void* memory, std::size_t /*bytes*/) noexcept { release_aligned(memory); }
void prefer_huge_pages(void* /*memory*/, std::size_t /*bytes*/) noexcept {}
void forget_file_pages(void* /*memory*/, std::size_t /*bytes*/) noexcept {}
void before_fork() {}
void after_fork() {}
#endif

}  // namespace tfmbs::large_memory
