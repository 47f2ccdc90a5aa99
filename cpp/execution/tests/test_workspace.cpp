// Scratch memory: pieces do not overlap, a steady state allocates nothing, and what a thread keeps
// is capped.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <new>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include "failing_new.hpp"
#include "tfmbs/execution/workspace.hpp"

namespace tfmbs::execution {
namespace {

TEST(Workspace, PiecesAreAlignedAndApart) {
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    const Scratch scratch_of_round;
    Scratch scratch;
    std::vector<std::span<std::uint8_t>> pieces;
    for (int i = 0; i < 50; ++i) {
      const std::size_t bytes = std::uniform_int_distribution<std::size_t>(0, 50000)(random);
      pieces.push_back(scratch.take<std::uint8_t>(bytes));
      ASSERT_EQ(reinterpret_cast<std::uintptr_t>(pieces.back().data()) % Workspace::kAlignment, 0U);
      std::memset(pieces.back().data(), i, bytes);
    }
    for (int i = 0; i < 50; ++i) {
      for (const std::uint8_t byte : pieces[static_cast<std::size_t>(i)]) ASSERT_EQ(byte, i);
    }
  }
}

// Takes what a call would: some pieces, then inner scratches again and again.
void call(std::size_t bytes) {
  Scratch outer;
  const auto kept = outer.take<std::uint8_t>(bytes);
  std::memset(kept.data(), 7, bytes);
  for (int i = 0; i < 10; ++i) {
    Scratch inner;
    const auto part = inner.take<std::uint8_t>(bytes);
    std::memset(part.data(), i, bytes);
    const auto more = inner.take<std::uint8_t>(3 * bytes);
    std::memset(more.data(), i, 3 * bytes);
  }
  for (const std::uint8_t byte : kept) ASSERT_EQ(byte, 7);
}

TEST(Workspace, ASteadyStateAllocatesNothing) {
  std::thread([] {
    for (const std::size_t bytes : {std::size_t{1000}, std::size_t{100000}}) {
      call(bytes);
      call(bytes);
      testing::FailingNew failing(0);
      call(bytes);
      EXPECT_FALSE(failing.stop());
    }
  }).join();
}

TEST(Workspace, InnerScratchesUseTheSameMemoryAgain) {
  std::thread([] {
    call(100000);
    EXPECT_LE(workspace_bytes(), 600000U);
  }).join();
}

TEST(Workspace, KeepsNoMoreThanItsCap) {
  std::thread([] {
    call(Workspace::kCap);
    EXPECT_LE(workspace_bytes(), Workspace::kCap);
    call(1000);
    EXPECT_LE(workspace_bytes(), Workspace::kCap);
    EXPECT_GT(workspace_bytes(), 0U);
  }).join();
}

TEST(Workspace, AFailedPieceLeavesTheOthers) {
  std::thread([] {
    Scratch scratch;
    const auto piece = scratch.take<std::uint8_t>(1000);
    std::memset(piece.data(), 3, piece.size());
    EXPECT_THROW((void)scratch.take<std::uint64_t>(static_cast<std::size_t>(-1) / 8),
                 std::bad_alloc);
    testing::FailingNew failing(0);
    EXPECT_THROW((void)scratch.take<std::uint8_t>(std::size_t{1} << 20), std::bad_alloc);
    failing.stop();
    for (const std::uint8_t byte : piece) ASSERT_EQ(byte, 3);
    EXPECT_EQ(scratch.take<std::uint8_t>(10).size(), 10U);
  }).join();
}

}  // namespace
}  // namespace tfmbs::execution
