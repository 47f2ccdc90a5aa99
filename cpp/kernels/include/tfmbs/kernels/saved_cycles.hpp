// The cycles of tiles whose weights leave few depths empty: what they save beside a tile that is
// occupied at every depth. Where most fields are occupied, that is far less work than tile_cycles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#pragma GCC visibility push(default)

namespace tfmbs::kernels {

// Field `field` of a row (kFieldTrits depths), some of whose depths are empty: bit i stands for
// depth kFieldTrits * field + i, which is below the row's depth.
struct PartlyEmptyField {
  std::uint32_t field;
  std::uint16_t empty;
};

// The sum, over `fields` and the row's planes of trits x, of
//   max(1, popcount(x[field])) - max(1, popcount(x[field] & ~empty)).
// A row of int8 activations in -127...127 has kInt8Planes planes.
[[nodiscard]] std::uint32_t saved_cycles(const std::int8_t* row, std::size_t depth,
                                         std::span<const PartlyEmptyField> fields) noexcept;
// A row of one plane, a row of bit planes (bit_planes.hpp).
[[nodiscard]] std::uint32_t saved_cycles(const std::uint64_t* row, std::size_t depth,
                                         std::span<const PartlyEmptyField> fields) noexcept;

}  // namespace tfmbs::kernels

#pragma GCC visibility pop
