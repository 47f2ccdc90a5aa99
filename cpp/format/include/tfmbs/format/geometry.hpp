// The fabric's shape and its address map: the one home of both (docs/fabric.md draws the map).
#pragma once

#include <cstdint>

#include "tfmbs/format/error.hpp"

#pragma GCC visibility push(default)

namespace tfmbs {

enum class Region : std::uint8_t { kResults, kBankA, kBankB, kBroadcast };

// Where an address lies: word `word` of `region` in tile `tile` (tile is 0 for the broadcast
// window, which writes Bank B of every tile).
struct Location {
  Region region{Region::kResults};
  std::uint32_t tile{0};
  std::uint32_t word{0};
};

// A validated shape; make() is the only way to a shape other than the default. Addresses are byte
// addresses that fit in 32 bits (make() refuses shapes whose map would not).
class Geometry {
 public:
  static constexpr std::uint32_t kMaxTiles = 64;      // a tile mask is one 64-bit integer
  static constexpr std::uint32_t kMinBankDepth = 15;  // one activation word
  // Six planes of trits weigh at most 364 a depth; 2^22 * 364 < 2^31, so no pass can overflow.
  static constexpr std::uint32_t kMaxBankDepth = 1U << 22;
  static constexpr std::uint32_t kMaxLanes = 1U << 16;

  constexpr Geometry() = default;  // 4 tiles, 15 lanes, 1,024 depths
  static Result<Geometry> make(std::uint64_t tiles, std::uint64_t lanes, std::uint64_t bank_depth);

  [[nodiscard]] constexpr std::uint32_t tiles() const noexcept { return tiles_; }
  [[nodiscard]] constexpr std::uint32_t lanes() const noexcept { return lanes_; }
  // Depths a Bank A holds, and words a Bank B holds.
  [[nodiscard]] constexpr std::uint32_t bank_depth() const noexcept { return bank_depth_; }
  // Words of Bank A that hold one depth of every lane: ceil(lanes / 15).
  [[nodiscard]] constexpr std::uint32_t words_per_depth() const noexcept {
    return (lanes_ + 14) / 15;
  }
  [[nodiscard]] constexpr std::uint32_t bank_a_words() const noexcept {
    return bank_depth_ * words_per_depth();
  }
  [[nodiscard]] constexpr std::uint32_t bank_b_words() const noexcept { return bank_depth_; }

  // All tiles' bits.
  [[nodiscard]] constexpr std::uint64_t all_tiles() const noexcept {
    return tiles_ == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << tiles_) - 1;
  }

  // --- the address map, in bytes -------------------------------------------------------------
  static constexpr std::uint64_t kResultsBase = 0x100;
  [[nodiscard]] constexpr std::uint64_t result_stride() const noexcept {
    return round_up(4ULL * lanes_, 0x40);
  }
  [[nodiscard]] constexpr std::uint64_t first_bank() const noexcept {
    return round_up(kResultsBase + result_stride() * tiles_, 0x1000);
  }
  // Room for one bank; a tile owns two in a row, A then B.
  [[nodiscard]] constexpr std::uint64_t bank_stride() const noexcept {
    return round_up(4ULL * bank_a_words(), 0x1000);
  }
  [[nodiscard]] constexpr std::uint64_t tile_stride() const noexcept { return 2 * bank_stride(); }
  [[nodiscard]] constexpr std::uint64_t results_base(std::uint32_t tile) const noexcept {
    return kResultsBase + result_stride() * tile;
  }
  [[nodiscard]] constexpr std::uint64_t bank_a_base(std::uint32_t tile) const noexcept {
    return first_bank() + tile_stride() * tile;
  }
  [[nodiscard]] constexpr std::uint64_t bank_b_base(std::uint32_t tile) const noexcept {
    return bank_a_base(tile) + bank_stride();
  }
  [[nodiscard]] constexpr std::uint64_t broadcast_base() const noexcept {
    return bank_a_base(tiles_);
  }
  [[nodiscard]] constexpr std::uint64_t end() const noexcept {
    return broadcast_base() + 4ULL * bank_b_words();
  }

  // Resolves [address, address + bytes). Errors (kAddress): misaligned (both are multiples of 4),
  // empty, outside every region, or across a region's end.
  [[nodiscard]] Result<Location> locate(std::uint64_t address, std::uint64_t bytes) const;

  friend constexpr bool operator==(const Geometry&, const Geometry&) = default;

 private:
  static constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) noexcept {
    return (value + unit - 1) / unit * unit;
  }

  std::uint32_t tiles_{4};
  std::uint32_t lanes_{15};
  std::uint32_t bank_depth_{1024};
};

static_assert(Geometry{}.first_bank() == 0x1000 && Geometry{}.tile_stride() == 0x2000 &&
                  Geometry{}.result_stride() == 0x40 && Geometry{}.broadcast_base() == 0x9000,
              "the default geometry is the published address map");

}  // namespace tfmbs

#pragma GCC visibility pop
