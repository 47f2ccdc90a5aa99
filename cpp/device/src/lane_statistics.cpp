#include "tfmbs/device/lane_statistics.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::device {
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

// Gives the memory back, which an assignment of {} keeps.
template <typename T>
void release(std::vector<T>& values) noexcept {
  std::vector<T>().swap(values);
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

LaneStatistics::LaneStatistics(BitPlaneView weights, std::uint32_t lanes, std::uint32_t tile_slots,
                               std::uint32_t group_depth)
    : LaneStatistics(weights.rows, weights.trits, lanes, tile_slots, group_depth) {
  add_rows(weights);
  finish();
}

LaneStatistics::LaneStatistics(std::size_t outputs, std::size_t depth, std::uint32_t lanes,
                               std::uint32_t tile_slots, std::uint32_t group_depth)
    : lanes_(lanes),
      tile_slots_(tile_slots),
      outputs_(outputs),
      depth_(depth),
      fields_(depth, group_depth),
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
  for (const std::uint64_t group : unfull_) {
    unfull_slots_.push_back(static_cast<std::uint32_t>(group % tile_slots_));
  }
  std::sort(unfull_slots_.begin(), unfull_slots_.end());
  unfull_slots_.erase(std::unique(unfull_slots_.begin(), unfull_slots_.end()), unfull_slots_.end());
  unfull_slots_.shrink_to_fit();
  std::vector<std::uint32_t> occupied;
  occupied.reserve(unfull_slots_.size() * depth_);
  for (const std::uint32_t slot : unfull_slots_) {
    const auto first = counted_occupied_.begin() + static_cast<std::ptrdiff_t>(slot * depth_);
    occupied.insert(occupied.end(), first, first + static_cast<std::ptrdiff_t>(depth_));
  }
  occupied_ = SlotCounts(occupied);
  release(counted_nonzeros_);
  release(counted_occupied_);

  const std::size_t groups = (outputs_ + lanes_ - 1) / lanes_;
  const std::vector<Place> places = order_lanes(groups);
  if (!find_partly_empty(places)) find_occupancy(places, groups);
  release(any_);
  release(unfull_);
  release(or_rows_);
}

std::vector<LaneStatistics::Place> LaneStatistics::order_lanes(std::size_t groups) {
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
  std::vector<Place> places;
  places.reserve(unfull_.size());
  std::size_t sparse = 0;
  std::size_t lone = 0;
  for (const std::uint64_t group : unfull_) {
    if (lone < lone_groups_.size() && lone_groups_[lone] == group) {
      places.push_back({sparse_passes_.size() + lone++, 0});
      continue;
    }
    while (sparse_passes_[sparse] != group / tile_slots_) ++sparse;
    places.push_back({sparse, static_cast<std::uint32_t>(group % tile_slots_)});
  }
  return places;
}

void LaneStatistics::pack_group(std::size_t i, std::vector<std::uint16_t>& fields) const {
  fields.resize(fields_.count());
  if (fields_.grouped()) {
    const std::uint64_t* row = or_rows_.data() + i * any_.size();
    fields_.for_each([&](std::size_t field, std::size_t begin, std::size_t depths) {
      fields[field] = DepthFields::bits(row, begin, depths);
    });
    return;
  }
  kernels::active().pack_fields({.activations = or_rows_.data() + i * any_.size(),
                                 .rows = 1,
                                 .trits = depth_,
                                 .copies = 1,
                                 .fields = fields.data(),
                                 .row_stride = fields.size()});
}

// False, and nothing is kept, where there are too many. A block is a lane.
bool LaneStatistics::find_partly_empty(const std::vector<Place>& places) {
  const std::size_t most = fields_.count();
  std::vector<std::vector<kernels::PartlyEmptyField>> found(places.size());
  std::vector<std::uint16_t> fields;
  std::size_t count = 0;
  for (std::size_t i = 0; i < places.size(); ++i) {
    pack_group(i, fields);
    for (std::size_t j = 0; j < fields.size(); ++j) {
      const std::size_t depths = fields_.depths(j);
      const auto empty = static_cast<std::uint16_t>(((1U << depths) - 1) & ~unsigned{fields[j]});
      if (empty == 0) continue;
      if (++count > most) return false;
      found[i].push_back({static_cast<std::uint32_t>(j), empty});
    }
  }
  const auto take = [&](std::size_t first_lane, std::size_t end_lane) {
    for (std::size_t i = 0; i < places.size(); ++i) {
      const Place& place = places[i];
      if (place.lane < first_lane || place.lane >= end_lane) continue;
      if (place.slot == 0) {
        blocks_.push_back({.first_field = 0,
                           .first_slot = partly_empty_ends_.size(),
                           .slots = 0,
                           .lanes = 1,
                           .first = place.lane,
                           .used = 1,
                           .first_place = place.lane});
      }
      ++blocks_.back().slots;
      partly_empty_.insert(partly_empty_.end(), found[i].begin(), found[i].end());
      partly_empty_ends_.push_back(partly_empty_.size());
    }
  };
  take(0, sparse_passes_.size());
  take(sparse_passes_.size(), sparse_passes_.size() + lone_groups_.size());
  return true;
}

std::span<const kernels::PartlyEmptyField> LaneStatistics::partly_empty(
    const LaneBlock& block, std::uint32_t slot) const noexcept {
  const std::size_t i = block.first_slot + slot;
  const std::size_t first = i == 0 ? 0 : partly_empty_ends_[i - 1];
  return std::span(partly_empty_).subspan(first, partly_empty_ends_[i] - first);
}

void LaneStatistics::find_occupancy(const std::vector<Place>& places, std::size_t groups) {
  add_blocks(0, sparse_passes_.size(),
             static_cast<std::uint32_t>(std::min<std::size_t>(tile_slots_, groups)));
  add_blocks(sparse_passes_.size(), lone_groups_.size(), 1);
  std::vector<std::uint16_t> fields;
  for (std::size_t i = 0; i < places.size(); ++i) {
    pack_group(i, fields);
    store(places[i], fields);
  }
}

void LaneStatistics::add_blocks(std::size_t first, std::size_t lanes, std::uint32_t slots) {
  while (lanes > 0) {
    const std::uint32_t width = block_lanes(lanes);
    const auto used = static_cast<std::uint32_t>(std::min<std::size_t>(width, lanes));
    const std::size_t place =
        blocks_.empty() ? 0 : blocks_.back().first_place + blocks_.back().lanes;
    blocks_.push_back({.first_field = occupancy_.size(),
                       .first_slot = 0,
                       .slots = slots,
                       .lanes = width,
                       .first = first,
                       .used = used,
                       .first_place = place});
    occupancy_.resize(occupancy_.size() + fields_.count() * slots * width);
    first += used;
    lanes -= used;
  }
}

void LaneStatistics::store(const Place& place, const std::vector<std::uint16_t>& fields) {
  const auto block = std::find_if(blocks_.begin(), blocks_.end(), [&place](const LaneBlock& b) {
    return place.lane < b.first + b.used;
  });
  std::uint16_t* out = occupancy_.data() + block->first_field +
                       place.slot * fields.size() * block->lanes + (place.lane - block->first);
  for (std::size_t j = 0; j < fields.size(); ++j) out[j * block->lanes] = fields[j];
}

}  // namespace tfmbs::device
