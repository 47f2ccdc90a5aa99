// Between bit planes and the words that the fabric's banks hold (docs/format.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/format/error.hpp"

#pragma GCC visibility push(default)

namespace tfmbs {

// A rectangle of a weight matrix: outputs [output, output + lanes) at depths [depth, depth +
// depths). Lanes beyond the matrix's last row are zero.
struct LaneBlock {
  std::size_t output{0};
  std::size_t lanes{0};
  std::size_t depth{0};  // a multiple of 8 is fastest; any value is right
  std::size_t depths{0};
};

// Lane-major: ceil(lanes/15) words a depth; trit i of word w at depth k is the weight of lane
// 15 w + i. `words` holds depths * ceil(lanes/15). Never fails on a valid rectangle; the caller
// guarantees depth + depths <= weights.trits.
void pack_lane_major(BitPlaneView weights, LaneBlock block,
                     std::span<std::uint32_t> words) noexcept;

// The inverse, into `weights` (rows block.output..., nothing but the rectangle); lanes beyond the
// last row or beyond block.lanes must be zero, and nothing is written on errors.
// Errors: kEncoding for a word that is no fabric word or for a non-zero lane beyond the last row.
Status unpack_lane_major(std::span<const std::uint32_t> words, LaneBlock block,
                         BitPlaneMatrix& weights);

// Activations: trits [depth, depth + depths) of one row, 15 a word, ceil(depths/15) words.
void pack_activations(BitPlaneView row, std::size_t depth, std::size_t depths,
                      std::span<std::uint32_t> words) noexcept;

}  // namespace tfmbs

#pragma GCC visibility pop
