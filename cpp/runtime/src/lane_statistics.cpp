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
    : LaneStatistics(weights.rows, weights.trits, lanes, tile_slots) {
  add_rows(weights);
  finish();
}

LaneStatistics::LaneStatistics(std::size_t outputs, std::size_t depth, std::uint32_t lanes,
                               std::uint32_t tile_slots)
    : lanes_(lanes),
      tile_slots_(tile_slots),
      outputs_(outputs),
      depth_(depth),
      words_(bit_plane_blocks(depth) * kPlaneWords),
      nonzeros_(std::size_t{tile_slots} * depth),
      any_(words_) {
  index_.reserve((outputs + lanes - 1) / lanes);
}

void LaneStatistics::add_rows(BitPlaneView rows) {
  for (std::size_t first = 0; first < rows.rows;) {
    const std::size_t group = added_ / lanes_;
    const std::size_t left = std::min((group + 1) * lanes_, outputs_) - added_;
    const std::size_t count = std::min(left, rows.rows - first);
    kernels::active().column_count({.activations = rows.row(first),
                                    .rows = count,
                                    .trits = depth_,
                                    .counts = nonzeros_.data() + group % tile_slots_ * depth_});
    for (std::size_t r = first; r < first + count; ++r) {
      const std::uint64_t* row = rows.row(r);
      for (std::size_t w = 0; w < words_; ++w) {
        any_[w] |= row[w / kPlaneWords * kBlockWords + w % kPlaneWords];
      }
    }
    first += count;
    added_ += count;
    if (count == left) end_group();
  }
}

void LaneStatistics::end_group() {
  bool full = true;
  for (std::size_t w = 0; w < words_; ++w) full = full && any_[w] == full_word(w, depth_);
  index_.push_back(full ? kFull : static_cast<std::uint32_t>(occupancy_.size() / words_));
  if (!full) occupancy_.insert(occupancy_.end(), any_.begin(), any_.end());
  std::fill(any_.begin(), any_.end(), 0);
}

void LaneStatistics::finish() {
  any_ = {};
  occupancy_.shrink_to_fit();
  for (std::uint32_t slot = 0; slot < tile_slots_; ++slot) {
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
