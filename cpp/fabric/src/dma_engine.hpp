// The DMA engine in one stage: a word a cycle, the transfers in order (docs/fabric.md).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tfmbs/fabric/device.hpp"
#include "tile.hpp"

namespace tfmbs::fabric {

[[nodiscard]] inline std::size_t words_of(const Transfer& transfer) noexcept {
  return transfer.kind == Transfer::Kind::kResultsOut ? transfer.destination.size()
                                                      : transfer.source.size();
}

// Calls visit(t) for every tile of a mask, the lowest first.
template <typename Visit>
void for_each_tile(std::uint64_t tile_mask, Visit visit) {
  for (; tile_mask != 0; tile_mask &= tile_mask - 1) {
    visit(static_cast<std::uint32_t>(std::countr_zero(tile_mask)));
  }
}

// Word `i` of a transfer, at any time. `tile_of(t)` is the TileState of tile t.
template <typename TileOf>
void move_word(const Transfer& transfer, std::size_t i, TileOf tile_of) noexcept {
  const std::size_t at = transfer.word + i;
  for_each_tile(transfer.tile_mask, [&](std::uint32_t t) {
    TileState& tile = tile_of(t);
    switch (transfer.kind) {
      case Transfer::Kind::kWeights:
        tile.store_weights(at, transfer.source[i]);
        break;
      case Transfer::Kind::kActivations:
        tile.bank_b[at] = transfer.source[i];
        break;
      case Transfer::Kind::kPartialsIn:
        tile.results[at] = static_cast<std::int32_t>(transfer.source[i]);
        break;
      case Transfer::Kind::kResultsOut:
        transfer.destination[i] = static_cast<std::uint32_t>(tile.results[at]);
        break;
    }
  });
}

class DmaEngine {
 public:
  explicit DmaEngine(std::span<const Transfer> transfers) noexcept : transfers_(transfers) {
    skip_finished();
  }

  [[nodiscard]] bool busy() const noexcept { return current_ < transfers_.size(); }

  template <typename TileOf>
  void tick(TileOf tile_of) noexcept {
    move_word(transfers_[current_], next_word_, tile_of);
    ++next_word_;
    skip_finished();
  }

  // The transfer that the next tick works on. Precondition: busy().
  [[nodiscard]] const Transfer& current() const noexcept { return transfers_[current_]; }

 private:
  void skip_finished() noexcept {
    while (current_ < transfers_.size() && next_word_ == words_of(transfers_[current_])) {
      ++current_;
      next_word_ = 0;
    }
  }

  std::span<const Transfer> transfers_;
  std::size_t current_{0};
  std::size_t next_word_{0};
};

}  // namespace tfmbs::fabric
