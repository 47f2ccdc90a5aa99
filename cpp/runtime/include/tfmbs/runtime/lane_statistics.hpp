// What the closed form needs of a layer's weights, computed once per packing and per shape of the
// device: which depths are empty in a group, and how many weights are not zero at each depth.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tfmbs/format/bit_planes.hpp"

namespace tfmbs::runtime {

class LaneStatistics {
 public:
  // Groups are runs of `lanes` outputs; group g runs on tile slot g % tile_slots.
  LaneStatistics(BitPlaneView weights, std::uint32_t lanes, std::uint32_t tile_slots);

  // The same in portions, for weights whose planes are never all in memory: add_rows() with
  // consecutive outputs, any number at a time, `outputs` in all; then finish(), once, and only then
  // the rest.
  LaneStatistics(std::size_t outputs, std::size_t depth, std::uint32_t lanes,
                 std::uint32_t tile_slots);
  void add_rows(BitPlaneView rows);
  void finish();

  [[nodiscard]] std::uint32_t lanes() const noexcept { return lanes_; }
  [[nodiscard]] std::uint32_t tile_slots() const noexcept { return tile_slots_; }
  // Occupied depths of a group, bit k%64 of word k/64, ceil(depth/512)*8 words; null: all occupied.
  [[nodiscard]] const std::uint64_t* occupancy(std::uint64_t group) const noexcept;
  [[nodiscard]] bool all_occupied() const noexcept { return occupancy_.empty(); }
  // Weights that are not zero at each depth, over all groups of a tile slot: a row of `depth`
  // values a slot.
  [[nodiscard]] const std::uint32_t* nonzeros() const noexcept { return nonzeros_.data(); }
  // Their sum over the depths.
  [[nodiscard]] std::uint64_t slot_nonzeros(std::uint32_t slot) const noexcept {
    return slot_nonzeros_[slot];
  }
  [[nodiscard]] std::size_t bytes() const noexcept {
    return nonzeros_.size() * 4 + occupancy_.size() * 8 + index_.size() * 4;
  }

 private:
  void end_group();

  std::uint32_t lanes_;
  std::uint32_t tile_slots_;
  std::size_t outputs_;
  std::size_t depth_;
  std::size_t words_;  // occupancy words of one group
  std::vector<std::uint64_t> slot_nonzeros_;
  std::vector<std::uint32_t> nonzeros_;   // tile_slots x depth
  std::vector<std::uint32_t> index_;      // group -> row of occupancy_, kFull where all occupied
  std::vector<std::uint64_t> occupancy_;  // only groups with an empty depth
  std::size_t added_{0};                  // outputs
  std::vector<std::uint64_t> any_;        // occupied depths of the group that is being added
};

}  // namespace tfmbs::runtime
