#include "tfmbs/runtime/lane_statistics.hpp"

#include <algorithm>
#include <cstddef>
#include <numeric>

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::runtime {
namespace {

constexpr std::uint32_t kFull = 0xFFFFFFFF;

std::uint64_t full_word(std::size_t word, std::size_t depth) noexcept {
  const std::size_t first = word * 64;
  if (depth >= first + 64) return ~std::uint64_t{0};
  return depth <= first ? 0 : (std::uint64_t{1} << (depth - first)) - 1;
}

}  // namespace

LaneStatistics::LaneStatistics(BitPlaneView weights, std::uint32_t lanes, std::uint32_t tile_slots)
    : lanes_(lanes),
      tile_slots_(tile_slots),
      depth_(weights.trits),
      words_(weights.blocks() * kPlaneWords),
      nonzeros_(std::size_t{tile_slots} * weights.trits) {
  const std::size_t groups = (weights.rows + lanes - 1) / lanes;
  index_.assign(groups, kFull);
  std::vector<std::uint64_t> any(words_);
  for (std::size_t g = 0; g < groups; ++g) {
    const std::size_t first = g * lanes;
    const std::size_t count = std::min<std::size_t>(lanes, weights.rows - first);
    kernels::active().column_count({.activations = weights.row(first),
                                    .rows = count,
                                    .trits = depth_,
                                    .counts = nonzeros_.data() + g % tile_slots * depth_});
    std::fill(any.begin(), any.end(), 0);
    for (std::size_t r = first; r < first + count; ++r) {
      const std::uint64_t* row = weights.row(r);
      for (std::size_t w = 0; w < words_; ++w) {
        any[w] |= row[w / kPlaneWords * kBlockWords + w % kPlaneWords];
      }
    }
    bool full = true;
    for (std::size_t w = 0; w < words_; ++w) full = full && any[w] == full_word(w, depth_);
    if (full) continue;
    index_[g] = static_cast<std::uint32_t>(occupancy_.size() / words_);
    occupancy_.insert(occupancy_.end(), any.begin(), any.end());
  }
  for (std::uint32_t slot = 0; slot < tile_slots; ++slot) {
    const auto first = nonzeros_.begin() + static_cast<std::ptrdiff_t>(slot * depth_);
    slot_nonzeros_.push_back(
        std::accumulate(first, first + static_cast<std::ptrdiff_t>(depth_), std::uint64_t{0}));
  }
}

const std::uint64_t* LaneStatistics::occupancy(std::uint64_t group) const noexcept {
  const std::uint32_t row = index_[group];
  return row == kFull ? nullptr : occupancy_.data() + std::size_t{row} * words_;
}

}  // namespace tfmbs::runtime
