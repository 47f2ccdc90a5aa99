#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <set>
#include <vector>

#include "kernel_test.hpp"
#include "tfmbs/kernels/fingerprint.hpp"

namespace tfmbs::kernels::test {
namespace {

class Fingerprint : public KernelTest {
 protected:
  std::uint64_t fingerprint(const void* data, std::size_t bytes) {
    return GetParam().fingerprint(data, bytes);
  }
};

TEST_P(Fingerprint, EverySetGivesTheSame) {
  Random random(case_seed(0));
  for (std::size_t size = 0; size <= 1100; ++size) {
    std::vector<unsigned char> bytes(size);
    for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random.bits());
    ASSERT_EQ(fingerprint(bytes.data(), size),
              all_kernels().front().fingerprint(bytes.data(), size));
    ASSERT_EQ(fingerprint(bytes.data(), size), kernels::fingerprint(bytes.data(), size));
  }
}

TEST_P(Fingerprint, DependsOnTheContentAlone) {
  Random random(case_seed(1));
  for (std::size_t size = 0; size <= 200; ++size) {
    std::vector<unsigned char> bytes(size);
    for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random.bits());
    const std::uint64_t expected = fingerprint(bytes.data(), size);
    for (std::size_t offset = 0; offset < 9; ++offset) {
      std::vector<unsigned char> shifted(size + 16, 0xEE);
      if (size > 0) std::memcpy(shifted.data() + offset, bytes.data(), size);
      ASSERT_EQ(fingerprint(shifted.data() + offset, size), expected);
    }
  }
}

TEST_P(Fingerprint, SizesOfZerosDiffer) {
  const std::vector<unsigned char> zeros(1000);
  std::set<std::uint64_t> seen;
  for (std::size_t size = 0; size <= zeros.size(); ++size) {
    ASSERT_TRUE(seen.insert(fingerprint(zeros.data(), size)).second) << size;
  }
}

TEST_P(Fingerprint, EveryBitCounts) {
  Random random(case_seed(2));
  for (const std::size_t size : {1UL, 7UL, 8UL, 13UL, 64UL, 71UL, 200UL, 333UL}) {
    std::vector<unsigned char> bytes(size);
    for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random.bits());
    std::set<std::uint64_t> seen{fingerprint(bytes.data(), size)};
    for (std::size_t bit = 0; bit < 8 * size; ++bit) {
      bytes[bit / 8] = static_cast<unsigned char>(bytes[bit / 8] ^ (1U << (bit % 8)));
      ASSERT_TRUE(seen.insert(fingerprint(bytes.data(), size)).second) << bit;
      bytes[bit / 8] = static_cast<unsigned char>(bytes[bit / 8] ^ (1U << (bit % 8)));
    }
  }
}

// Flipped signs are what training does, and what a hash of products could cancel: every pair of
// them, for each type, in equal weights and in random ones.
TEST_P(Fingerprint, PairsOfFlippedSignsCount) {
  Random random(case_seed(3));
  for (const std::size_t width : {2UL, 4UL, 8UL}) {
    for (const bool equal : {true, false}) {
      constexpr std::size_t kBytes = 512;
      std::vector<unsigned char> bytes(kBytes, 0x3F);
      if (!equal) {
        for (unsigned char& byte : bytes) byte = static_cast<unsigned char>(random.bits());
      }
      const auto flip = [&](std::size_t i) { bytes[i * width + width - 1] ^= 0x80; };
      std::set<std::uint64_t> seen{fingerprint(bytes.data(), kBytes)};
      for (std::size_t i = 0; i < kBytes / width; ++i) {
        flip(i);
        ASSERT_TRUE(seen.insert(fingerprint(bytes.data(), kBytes)).second);
        for (std::size_t j = i + 1; j < kBytes / width; ++j) {
          flip(j);
          ASSERT_TRUE(seen.insert(fingerprint(bytes.data(), kBytes)).second) << i << ", " << j;
          flip(j);
        }
        flip(i);
      }
    }
  }
}

TEST_P(Fingerprint, OrderCounts) {
  Random random(case_seed(4));
  std::vector<std::uint64_t> words(64);
  for (std::uint64_t& word : words) word = random.bits();
  std::set<std::uint64_t> seen{fingerprint(words.data(), words.size() * 8)};
  for (std::size_t i = 0; i < words.size(); ++i) {
    for (std::size_t j = i + 1; j < words.size(); ++j) {
      std::swap(words[i], words[j]);
      ASSERT_TRUE(seen.insert(fingerprint(words.data(), words.size() * 8)).second);
      std::swap(words[i], words[j]);
    }
  }
}

TFMBS_FOR_EVERY_SET(Fingerprint);

}  // namespace
}  // namespace tfmbs::kernels::test
