// Bit planes: the layout of quantized activations, and of weights while they are quantized (a layer
// then keeps weight_panels.hpp's). A row of K trits is ceil(K/512) blocks; a block is eight 64-bit
// words of the `nonzero` plane followed by eight of the `negative` plane, bit k%64 of word k/64 for
// trit k. Padding bits are zero in both planes, and negative is a subset of nonzero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "tfmbs/format/error.hpp"

#pragma GCC visibility push(default)

namespace tfmbs {

inline constexpr std::size_t kBlockTrits = 512;
inline constexpr std::size_t kPlaneWords = 8;                // 64-bit words of one plane in a block
inline constexpr std::size_t kBlockWords = 2 * kPlaneWords;  // nonzero, then negative
static_assert(kPlaneWords * 64 == kBlockTrits);

[[nodiscard]] constexpr std::size_t bit_plane_blocks(std::size_t trits) noexcept {
  return (trits + kBlockTrits - 1) / kBlockTrits;
}

// Word index, inside a row, of the nonzero word that holds trit k; its negative word stands
// kPlaneWords later.
[[nodiscard]] constexpr std::size_t bit_plane_word(std::size_t k) noexcept {
  return k / kBlockTrits * kBlockWords + k % kBlockTrits / 64;
}

// A borrowed matrix of bit planes: `rows` rows of `blocks` blocks, one after another.
struct BitPlaneView {
  const std::uint64_t* words{nullptr};
  std::size_t rows{0};
  std::size_t trits{0};  // K: trits a row

  [[nodiscard]] std::size_t blocks() const noexcept { return bit_plane_blocks(trits); }
  [[nodiscard]] std::size_t row_words() const noexcept { return blocks() * kBlockWords; }
  [[nodiscard]] const std::uint64_t* row(std::size_t r) const noexcept {
    return words + r * row_words();
  }
  [[nodiscard]] BitPlaneView slice(std::size_t first, std::size_t count) const noexcept {
    return {row(first), count, trits};
  }
  [[nodiscard]] int trit(std::size_t r, std::size_t k) const noexcept;
};

// An owned one, aligned to 64 bytes and zero on construction. Move-only.
class BitPlaneMatrix {
 public:
  BitPlaneMatrix() = default;
  BitPlaneMatrix(std::size_t rows, std::size_t trits);

  [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
  [[nodiscard]] std::size_t trits() const noexcept { return trits_; }
  [[nodiscard]] std::size_t row_words() const noexcept {
    return bit_plane_blocks(trits_) * kBlockWords;
  }
  [[nodiscard]] std::size_t bytes() const noexcept { return rows_ * row_words() * 8; }
  [[nodiscard]] std::uint64_t* data() noexcept { return words_.get(); }
  [[nodiscard]] std::uint64_t* row(std::size_t r) noexcept {
    return words_.get() + r * row_words();
  }
  [[nodiscard]] BitPlaneView view() const noexcept { return {words_.get(), rows_, trits_}; }

 private:
  struct AlignedDelete {
    void operator()(std::uint64_t* words) const noexcept;
  };
  std::unique_ptr<std::uint64_t[], AlignedDelete> words_;
  std::size_t rows_{0};
  std::size_t trits_{0};
};

// Trits (row-major, rows x K, each -1, 0, +1) to planes and back. Errors: kInvalidArgument with the
// index of the first value that is no trit, or for a wrong size.
Result<BitPlaneMatrix> pack_bit_planes(std::span<const std::int8_t> trits, std::size_t rows,
                                       std::size_t columns);
Status unpack_bit_planes(BitPlaneView planes, std::span<std::int8_t> trits);

}  // namespace tfmbs

#pragma GCC visibility pop
