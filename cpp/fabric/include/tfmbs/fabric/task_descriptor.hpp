// The task descriptor (TFD): one pass of the engine (docs/fabric.md, "Engine").
#pragma once

#include <cstdint>
#include <vector>

#include "tfmbs/format/error.hpp"
#include "tfmbs/format/geometry.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::fabric {

struct TaskDescriptor {
  std::uint64_t weight_base{0};      // byte offset into Bank A of each tile, a multiple of 4
  std::uint64_t activation_base{0};  // byte offset into Bank B of each tile, a multiple of 4
  std::uint32_t depth{0};            // depths, 1...bank_depth
  std::uint32_t lanes{0};            // lanes that run, 1...geometry.lanes()
  // Bit l%64 of word l/64 for lane l; empty: all of `lanes`. At least one bit, none from `lanes`
  // on; words that are not there are 0. A masked lane neither multiplies nor counts, and its result
  // register stays as it was.
  std::vector<std::uint64_t> lane_mask{};
  std::uint64_t tile_mask{1};  // bit t for tile t, not 0
  std::uint32_t planes{1};     // 1 (trits) or 6 (int8)
  bool accumulate{false};      // add to the result registers instead of writing them
  bool zero_skip{true};
};

// Errors: kDescriptor (a field out of range, a base beyond its bank, depth across its end).
Status validate(const TaskDescriptor& task, const Geometry& geometry);

}  // namespace tfmbs::fabric

#pragma GCC visibility pop
