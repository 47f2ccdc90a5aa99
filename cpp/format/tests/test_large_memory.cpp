#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tfmbs/format/large_memory.hpp"

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

}  // namespace
}  // namespace tfmbs::large_memory
