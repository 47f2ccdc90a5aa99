#include "tfmbs/runtime/lane_statistics.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::runtime {
namespace {

std::uint64_t full_word(std::size_t word, std::size_t depth) noexcept {
  const std::size_t first = word * 64;
  if (depth >= first + 64) return ~std::uint64_t{0};
  return depth <= first ? 0 : (std::uint64_t{1} << (depth - first)) - 1;
}

// Lanes of the next block: narrow blocks cost less, but each has sums of its own.
std::uint32_t block_lanes(std::size_t left) noexcept {
  if (left >= kernels::kPassLanes) return kernels::kPassLanes;
  if (left > 16 && left <= 24) return 16;
  return static_cast<std::uint32_t>(std::bit_ceil(left));
}

}  // namespace

SlotCounts::SlotCounts(const std::vector<std::uint32_t>& counts) {
  std::uint32_t bits = 0;
  low_.reserve(counts.size());
  for (const std::uint32_t count : counts) {
    low_.push_back(static_cast<std::uint16_t>(count));
    bits |= count;
  }
  if (bits >> 16 == 0) return;
  high_.reserve(counts.size());
  for (const std::uint32_t count : counts) high_.push_back(static_cast<std::uint16_t>(count >> 16));
}

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
      full_groups_(tile_slots),
      counted_nonzeros_(std::size_t{tile_slots} * depth),
      counted_occupied_(std::size_t{tile_slots} * depth),
      any_(bit_plane_blocks(depth) * kBlockWords) {}

void LaneStatistics::add_rows(BitPlaneView rows) {
  for (std::size_t first = 0; first < rows.rows;) {
    const std::size_t group = added_ / lanes_;
    const std::size_t left = std::min((group + 1) * lanes_, outputs_) - added_;
    const std::size_t count = std::min(left, rows.rows - first);
    kernels::active().column_count(
        {.activations = rows.row(first),
         .rows = count,
         .trits = depth_,
         .counts = counted_nonzeros_.data() + group % tile_slots_ * depth_});
    for (std::size_t r = first; r < first + count; ++r) {
      const std::uint64_t* row = rows.row(r);
      for (std::size_t block = 0; block < any_.size(); block += kBlockWords) {
        for (std::size_t w = block; w < block + kPlaneWords; ++w) any_[w] |= row[w];
      }
    }
    first += count;
    added_ += count;
    if (count == left) end_group();
  }
}

void LaneStatistics::end_group() {
  const std::size_t group = (added_ - 1) / lanes_;
  const std::size_t slot = group % tile_slots_;
  kernels::active().column_count({.activations = any_.data(),
                                  .rows = 1,
                                  .trits = depth_,
                                  .counts = counted_occupied_.data() + slot * depth_});
  bool full = true;
  for (std::size_t w = 0; w < any_.size() / 2; ++w) {
    const std::uint64_t word = any_[w / kPlaneWords * kBlockWords + w % kPlaneWords];
    full = full && word == full_word(w, depth_);
  }
  if (full) {
    ++full_groups_[slot];
  } else {
    unfull_.push_back(group);
    or_rows_.insert(or_rows_.end(), any_.begin(), any_.end());
  }
  std::fill(any_.begin(), any_.end(), 0);
}

void LaneStatistics::finish() {
  const auto sum_of_slot = [this](const std::vector<std::uint32_t>& counts, std::uint32_t slot) {
    const auto first = counts.begin() + static_cast<std::ptrdiff_t>(slot * depth_);
    return std::accumulate(first, first + static_cast<std::ptrdiff_t>(depth_), std::uint64_t{0});
  };
  for (std::uint32_t slot = 0; slot < tile_slots_; ++slot) {
    slot_nonzeros_.push_back(sum_of_slot(counted_nonzeros_, slot));
    slot_occupied_.push_back(sum_of_slot(counted_occupied_, slot));
  }
  nonzeros_ = SlotCounts(counted_nonzeros_);
  if (!unfull_.empty()) occupied_ = SlotCounts(counted_occupied_);
  counted_nonzeros_ = {};
  counted_occupied_ = {};

  const std::size_t groups = (outputs_ + lanes_ - 1) / lanes_;
  for (std::size_t i = 0; i < unfull_.size();) {
    const std::uint64_t pass = unfull_[i] / tile_slots_;
    const std::size_t tiles = std::min<std::size_t>(tile_slots_, groups - pass * tile_slots_);
    std::size_t end = i;
    while (end < unfull_.size() && unfull_[end] / tile_slots_ == pass) ++end;
    if (end - i == tiles) {
      sparse_passes_.push_back(pass);
    } else {
      lone_groups_.insert(lone_groups_.end(), unfull_.begin() + static_cast<std::ptrdiff_t>(i),
                          unfull_.begin() + static_cast<std::ptrdiff_t>(end));
    }
    i = end;
  }
  add_blocks(0, sparse_passes_.size(),
             static_cast<std::uint32_t>(std::min<std::size_t>(tile_slots_, groups)));
  add_blocks(sparse_passes_.size(), lone_groups_.size(), 1);

  std::vector<std::uint16_t> fields(kernels::fields_of(depth_));
  for (std::size_t i = 0, sparse = 0, lone = 0; i < unfull_.size(); ++i) {
    kernels::active().pack_fields({.activations = or_rows_.data() + i * any_.size(),
                                   .rows = 1,
                                   .trits = depth_,
                                   .copies = 1,
                                   .fields = fields.data(),
                                   .row_stride = fields.size()});
    if (lone < lone_groups_.size() && lone_groups_[lone] == unfull_[i]) {
      store(sparse_passes_.size() + lone++, 0, fields);
      continue;
    }
    while (sparse_passes_[sparse] != unfull_[i] / tile_slots_) ++sparse;
    store(sparse, static_cast<std::uint32_t>(unfull_[i] % tile_slots_), fields);
  }
  any_ = {};
  unfull_ = {};
  or_rows_ = {};
}

void LaneStatistics::add_blocks(std::size_t first, std::size_t lanes, std::uint32_t slots) {
  while (lanes > 0) {
    const std::uint32_t width = block_lanes(lanes);
    const auto used = static_cast<std::uint32_t>(std::min<std::size_t>(width, lanes));
    const std::size_t place =
        blocks_.empty() ? 0 : blocks_.back().first_place + blocks_.back().lanes;
    blocks_.push_back({occupancy_.size(), slots, width, first, used, place});
    occupancy_.resize(occupancy_.size() + kernels::fields_of(depth_) * slots * width);
    first += used;
    lanes -= used;
  }
}

void LaneStatistics::store(std::size_t lane, std::uint32_t slot,
                           const std::vector<std::uint16_t>& fields) {
  const auto block = std::find_if(blocks_.begin(), blocks_.end(),
                                  [lane](const LaneBlock& b) { return lane < b.first + b.used; });
  std::uint16_t* out = occupancy_.data() + block->occupancy + slot * fields.size() * block->lanes +
                       (lane - block->first);
  for (std::size_t j = 0; j < fields.size(); ++j) out[j * block->lanes] = fields[j];
}

}  // namespace tfmbs::runtime
