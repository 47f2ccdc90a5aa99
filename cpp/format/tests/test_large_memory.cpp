#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tfmbs/format/large_memory.hpp"

#ifdef __linux__
#include <sys/mman.h>

#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#endif

namespace tfmbs::large_memory {
namespace {

TEST(LargeMemory, PreferringHugePagesChangesNothingElse) {
  std::vector<std::uint8_t> memory(16 * kHugePage + 5);
  for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<std::uint8_t>(i * 31);
  const std::vector<std::uint8_t> before = memory;
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, kHugePage, 4 * kHugePage - 1,
                                  4 * kHugePage, memory.size() - 3}) {
    for (const std::size_t at : {std::size_t{0}, std::size_t{3}}) {
      prefer_huge_pages(memory.data() + at, bytes);
    }
  }
  EXPECT_TRUE(std::ranges::equal(memory, before));
  prefer_huge_pages(nullptr, 0);
}

// Memory from an offset into huge pages on, and which of these pages lie in it whole.
struct Case {
  std::size_t offset;
  std::size_t bytes;
  std::size_t first;
  std::size_t last;  // exclusive
};
constexpr std::size_t kPages = 9;  // that all cases lie in
constexpr Case kCases[] = {
    {0, 0, 0, 0},
    {0, 4 * kHugePage - 1, 0, 0},
    {0, 4 * kHugePage, 0, 4},
    {0, 4 * kHugePage + 1, 0, 4},
    {0, 5 * kHugePage - 1, 0, 4},
    {0, 5 * kHugePage, 0, 5},
    {1, 4 * kHugePage - 1, 0, 0},
    {1, 4 * kHugePage, 1, 4},
    {1, 5 * kHugePage - 2, 1, 4},
    {1, 5 * kHugePage - 1, 1, 5},
    {4096, 6 * kHugePage, 1, 6},
    {kHugePage - 4096, 4 * kHugePage + 4096, 1, 5},
    {kHugePage - 1, 4 * kHugePage, 1, 4},
    {kHugePage - 1, 4 * kHugePage + 1, 1, 5},
    {kHugePage, 4 * kHugePage, 1, 5},
    {2 * kHugePage, 7 * kHugePage, 2, 9},
    {2 * kHugePage + 1, 7 * kHugePage - 2, 3, 8},
};

TEST(LargeMemory, WholeHugePagesOfAnyMemory) {
  for (const Case& c : kCases) {
    for (const std::size_t base : {std::size_t{0}, 12345 * kHugePage}) {
      const detail::Part found = detail::whole_huge_pages(base + c.offset, c.bytes);
      const detail::Part expected{c.last == 0 ? 0 : c.first * kHugePage - c.offset,
                                  (c.last - c.first) * kHugePage};
      EXPECT_EQ(found, expected) << c.bytes << " bytes at " << c.offset << ": " << found.bytes
                                 << " from " << found.offset;
    }
  }
}

#ifdef __linux__
// Addresses, aligned to huge pages, that nobody else uses.
class Region {
 public:
  Region()
      : mapped_(mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {}
  ~Region() { munmap(mapped_, kSize); }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  [[nodiscard]] std::byte* begin() const {
    const auto at = reinterpret_cast<std::uintptr_t>(mapped_);
    return static_cast<std::byte*>(mapped_) + (kHugePage - at % kHugePage);
  }

  // Of every 4 KiB from begin() on: whether the system was asked for a huge page there.
  [[nodiscard]] std::vector<bool> advised() const {
    constexpr std::size_t kSmallPage = 4096;
    const auto base = reinterpret_cast<std::uintptr_t>(begin());
    std::vector<bool> pages(kPages * kHugePage / kSmallPage);
    std::ifstream mappings("/proc/self/smaps");
    std::uintptr_t first = 0;
    std::uintptr_t last = 0;
    for (std::string line; std::getline(mappings, line);) {
      std::istringstream words(line);
      std::uintptr_t from = 0;
      std::uintptr_t to = 0;
      char dash = 0;
      if (words >> std::hex >> from >> dash >> to && dash == '-') {
        first = from;
        last = to;
      } else if (line.starts_with("VmFlags:") && line.find(" hg") != std::string::npos) {
        for (std::size_t page = 0; page < pages.size(); ++page) {
          const std::uintptr_t at = base + page * kSmallPage;
          if (first <= at && at < last) pages[page] = true;
        }
      }
    }
    return pages;
  }

 private:
  static constexpr std::size_t kSize = (kPages + 1) * kHugePage;
  void* mapped_;
};

TEST(LargeMemory, TheSystemIsAskedForTheWholeHugePagesAndNoOthers) {
  {
    const Region probe;
    madvise(probe.begin(), kPages * kHugePage, MADV_HUGEPAGE);
    const std::vector<bool> pages = probe.advised();
    if (!std::ranges::all_of(pages, std::identity{})) {
      GTEST_SKIP() << "this system has no huge pages, or does not say where it was asked for them";
    }
  }
  for (const Case& c : kCases) {
    const Region region;
    prefer_huge_pages(region.begin() + c.offset, c.bytes);
    const std::vector<bool> found = region.advised();
    std::vector<bool> expected(found.size());
    const std::size_t each = found.size() / kPages;
    for (std::size_t page = c.first * each; page < c.last * each; ++page) expected[page] = true;
    EXPECT_EQ(found, expected) << c.bytes << " bytes at " << c.offset;
  }
}
#endif

}  // namespace
}  // namespace tfmbs::large_memory
