// What the closed form needs of a layer's weights, computed once per packing and per shape of the
// device: which depths are empty in a group, and how many weights are not zero at each depth.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tfmbs/device/depth_fields.hpp"
#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/kernels/saved_cycles.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::device {

// Lanes of kernels::tile_cycles: up to 32 of LaneStatistics' lanes, or where layers are nearly
// full, one.
struct LaneBlock {
  std::size_t first_field;  // of its occupancy; a nearly full layer has none
  std::size_t first_slot;   // slots of the blocks before; only a nearly full layer has them
  std::uint32_t slots;      // tiles of a pass; 1 where the lanes are groups
  std::uint32_t lanes;      // a power of two
  std::size_t first;        // of the lanes in use
  std::uint32_t used;       // of `lanes`; the others' weights are all zero
  std::size_t first_place;  // lanes of the blocks before, those without use counted too
};

// A count for each tile slot and depth, as 16-bit halves (kernels::weighted_sum reads these). Few
// layers need the upper ones.
class SlotCounts {
 public:
  SlotCounts() = default;
  explicit SlotCounts(const std::vector<std::uint32_t>& counts);
  [[nodiscard]] std::span<const std::uint16_t> low() const noexcept { return low_; }
  [[nodiscard]] std::span<const std::uint16_t> high() const noexcept { return high_; }  // or empty

 private:
  std::vector<std::uint16_t> low_;
  std::vector<std::uint16_t> high_;
};

// Groups are runs of `lanes` outputs; group g runs in pass g / tile_slots on slot g % tile_slots.
// A group is *full* where some weight of it is not zero at every depth. As its tile takes the most
// cycles that any can, it is the slowest of its pass: what the other tiles take matters only to
// their own sums. A pass without a full group is *sparse*. A layer is *nearly full* where
// the groups that are not full are empty in no more fields of depths (kernels::kFieldTrits), all
// together, than a row has: what they save beside full ones is then counted from these fields. A
// short last group often makes it so: of four outputs, a third of whose weights are zero, one depth
// in 81 is empty. With group scales (group_depth, 0: none) fields begin anew at each scale group.
class LaneStatistics {
 public:
  LaneStatistics(BitPlaneView weights, std::uint32_t lanes, std::uint32_t tile_slots,
                 std::uint32_t group_depth = 0);

  // The same in portions, for weights whose planes are never all in memory: add_rows() with
  // consecutive outputs, any number at a time, `outputs` in all; then finish(), once, and only then
  // the rest.
  LaneStatistics(std::size_t outputs, std::size_t depth, std::uint32_t lanes,
                 std::uint32_t tile_slots, std::uint32_t group_depth = 0);
  void add_rows(BitPlaneView rows);
  void finish();

  [[nodiscard]] std::uint32_t lanes() const noexcept { return lanes_; }
  [[nodiscard]] std::uint32_t tile_slots() const noexcept { return tile_slots_; }
  // Every group is full: there are no lanes, and no occupied().
  [[nodiscard]] bool all_occupied() const noexcept { return blocks_.empty(); }
  [[nodiscard]] std::uint64_t full_groups(std::uint32_t slot) const noexcept {
    return full_groups_[slot];
  }
  // What is counted a lane at a time: the sparse passes, then the groups of the other passes that
  // are not full; each in order.
  [[nodiscard]] std::span<const std::uint64_t> sparse_passes() const noexcept {
    return sparse_passes_;
  }
  [[nodiscard]] std::span<const std::uint64_t> lone_groups() const noexcept { return lone_groups_; }
  // No block has lanes of both kinds.
  [[nodiscard]] std::span<const LaneBlock> blocks() const noexcept { return blocks_; }
  [[nodiscard]] bool nearly_full() const noexcept { return !partly_empty_.empty(); }
  // Their occupied depths, as slots x fields x lanes, unless the layer is nearly full.
  [[nodiscard]] const std::uint16_t* occupancy(const LaneBlock& block) const noexcept {
    return occupancy_.data() + block.first_field;
  }
  // And if it is, their empty depths, ordered by field.
  [[nodiscard]] std::span<const kernels::PartlyEmptyField> partly_empty(
      const LaneBlock& block, std::uint32_t slot) const noexcept;
  [[nodiscard]] std::size_t partly_empty_fields() const noexcept { return partly_empty_.size(); }

  // Weights that are not zero at each depth, over all groups of a tile slot: a row of `depth`
  // values a slot.
  [[nodiscard]] const SlotCounts& nonzeros() const noexcept { return nonzeros_; }
  // Their sum over the depths.
  [[nodiscard]] std::uint64_t slot_nonzeros(std::uint32_t slot) const noexcept {
    return slot_nonzeros_[slot];
  }
  // Tile slots with a group that is not full. In the others each group is occupied at each depth.
  [[nodiscard]] std::span<const std::uint32_t> unfull_slots() const noexcept {
    return unfull_slots_;
  }
  // Groups of those slots that are occupied at each depth, in the form of nonzeros().
  [[nodiscard]] const SlotCounts& occupied() const noexcept { return occupied_; }
  [[nodiscard]] std::uint64_t slot_occupied(std::uint32_t slot) const noexcept {
    return slot_occupied_[slot];
  }

 private:
  // Where a group that is not full is counted.
  struct Place {
    std::size_t lane;
    std::uint32_t slot;
  };
  void end_group();
  [[nodiscard]] std::vector<Place> order_lanes(std::size_t groups);
  // The occupied depths of group unfull_[i].
  void pack_group(std::size_t i, std::vector<std::uint16_t>& fields) const;
  [[nodiscard]] bool find_partly_empty(const std::vector<Place>& places);
  void find_occupancy(const std::vector<Place>& places, std::size_t groups);
  void add_blocks(std::size_t first, std::size_t lanes, std::uint32_t slots);
  void store(const Place& place, const std::vector<std::uint16_t>& fields);

  std::uint32_t lanes_;
  std::uint32_t tile_slots_;
  std::size_t outputs_;
  std::size_t depth_;
  DepthFields fields_;
  std::vector<std::uint64_t> slot_nonzeros_;
  std::vector<std::uint64_t> slot_occupied_;
  SlotCounts nonzeros_;
  std::vector<std::uint32_t> unfull_slots_;
  SlotCounts occupied_;
  std::vector<std::uint64_t> full_groups_;
  std::vector<std::uint64_t> sparse_passes_;
  std::vector<std::uint64_t> lone_groups_;
  std::vector<LaneBlock> blocks_;
  std::vector<std::uint16_t> occupancy_;
  std::vector<kernels::PartlyEmptyField> partly_empty_;
  std::vector<std::size_t> partly_empty_ends_;  // of each block's slots

  // Until finish():
  std::size_t added_{0};                         // outputs
  std::vector<std::uint32_t> counted_nonzeros_;  // tile_slots x depth
  std::vector<std::uint32_t> counted_occupied_;  // tile_slots x depth
  std::vector<std::uint64_t> any_;               // the group that is being added: its rows' OR
  std::vector<std::uint64_t> unfull_;            // groups that are not full, and
  std::vector<std::uint64_t> or_rows_;           // the ORs of their rows
};

}  // namespace tfmbs::device

#pragma GCC visibility pop
