// What one tile holds: its banks, and a register set a lane.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "tfmbs/format/geometry.hpp"
#include "tfmbs/format/pt5.hpp"

namespace tfmbs::fabric {

// Zeroed words. calloc, because a big bank then costs memory only where it is written: a geometry
// may have gigabytes of banks that nobody ever looks at.
template <typename Word>
class ZeroedArray {
 public:
  explicit ZeroedArray(std::size_t size)
      : size_(size), words_(static_cast<Word*>(std::calloc(size, sizeof(Word)))) {
    if (words_ == nullptr) {
      throw std::bad_alloc();
    }
  }
  // Touches no more memory than was written.
  ZeroedArray(const ZeroedArray& other) : ZeroedArray(other.size_) {
    used_ = other.used_;
    std::copy_n(other.words_.get(), used_, words_.get());
  }
  ZeroedArray(ZeroedArray&&) noexcept = default;
  ZeroedArray& operator=(const ZeroedArray&) = delete;
  ZeroedArray& operator=(ZeroedArray&&) noexcept = default;
  ~ZeroedArray() = default;

  [[nodiscard]] Word& operator[](std::size_t i) noexcept {
    used_ = std::max(used_, i + 1);
    return words_.get()[i];
  }
  [[nodiscard]] const Word& operator[](std::size_t i) const noexcept { return words_.get()[i]; }

 private:
  struct Free {
    void operator()(Word* words) const noexcept { std::free(words); }
  };
  std::size_t size_;
  std::size_t used_{0};  // all words from here on are zero
  std::unique_ptr<Word, Free> words_;
};

struct TileState {
  explicit TileState(const Geometry& geometry)
      : bank_a(geometry.bank_a_words()),
        occupancy(geometry.bank_a_words() / 64 + 1),
        bank_b(geometry.bank_b_words()),
        accumulators(std::size_t{geometry.words_per_depth()} * kTritsPerWord),
        results(geometry.lanes()),
        overflow(geometry.lanes()) {}

  void store_weights(std::size_t at, std::uint32_t word) noexcept {
    bank_a[at] = word;
    const std::uint64_t bit = std::uint64_t{1} << (at % 64);
    // Five zeros are the byte 0, so a word has a non-zero trit exactly if it is not 0.
    if (word != 0) {
      occupancy[at / 64] |= bit;
    } else {
      occupancy[at / 64] &= ~bit;
    }
  }
  [[nodiscard]] bool occupied(std::size_t at) const noexcept {
    return (occupancy[at / 64] >> (at % 64) & 1) != 0;
  }

  ZeroedArray<std::uint32_t> bank_a;
  ZeroedArray<std::uint64_t> occupancy;  // bit w%64 of word w/64 for word w of Bank A
  ZeroedArray<std::uint32_t> bank_b;
  // Unsigned, for arithmetic modulo 2^32; lanes padded to whole words.
  std::vector<std::uint32_t> accumulators;
  std::vector<std::int32_t> results;
  std::vector<std::uint8_t> overflow;
};

}  // namespace tfmbs::fabric
