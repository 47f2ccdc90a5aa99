#include "tfmbs/kernels/saved_cycles.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "pack_fields/scalar_pack_fields.hpp"
#include "quantize_int8/balanced_trits.hpp"
#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::kernels {
namespace {

// Counts of six planes, a byte each.
using PlaneCounts = std::uint64_t;
constexpr PlaneCounts kEach = 0x0101010101010101;
static_assert(kInt8Planes <= sizeof(PlaneCounts));

// Of a value as an unsigned byte: 1 in each plane whose trit is not zero.
constexpr std::array<PlaneCounts, 256> kNonzeros = [] {
  std::array<PlaneCounts, 256> table{};
  for (int value = -127; value <= 127; ++value) {
    const std::uint8_t bits = balanced_trits(value < 0 ? -value : value).nonzero;
    for (std::size_t p = 0; p < kInt8Planes; ++p) {
      table[static_cast<std::uint8_t>(value)] |= PlaneCounts{bits >> p & 1U} << (8 * p);
    }
  }
  return table;
}();

PlaneCounts nonzeros(std::int8_t value) noexcept {
  return kNonzeros[static_cast<std::uint8_t>(value)];
}

// 1 in each byte that is not zero; bytes are at most kFieldTrits.
PlaneCounts some(PlaneCounts counts) noexcept { return (counts + 0x7F * kEach) >> 7 & kEach; }

std::uint32_t sum_of_bytes(PlaneCounts counts) noexcept {
  return static_cast<std::uint32_t>(counts * kEach >> 56);  // at most 6 * kFieldTrits
}
static_assert(kInt8Planes * kFieldTrits <= 255);

}  // namespace

std::uint32_t saved_cycles(const std::int8_t* row, std::size_t depth,
                           std::span<const PartlyEmptyField> fields) noexcept {
  std::uint32_t saved = 0;
  for (const auto& [field, empty] : fields) {
    const std::size_t first = field * kFieldTrits;
    PlaneCounts lost = 0;
    for (unsigned left = empty; left != 0; left &= left - 1) {
      lost += nonzeros(row[first + static_cast<std::size_t>(std::countr_zero(left))]);
    }
    if (lost == 0) continue;
    const std::size_t end = std::min(first + kFieldTrits, depth);
    PlaneCounts all = 0;
    for (std::size_t k = first; k < end; ++k) all += nonzeros(row[k]);
    // max(1, n) is n + 1 - some(n).
    saved += sum_of_bytes(lost + some(all - lost) - some(all));
  }
  return saved;
}

std::uint32_t saved_cycles(const std::uint64_t* row, std::size_t depth,
                           std::span<const PartlyEmptyField> fields) noexcept {
  const std::size_t words = bit_plane_blocks(depth) * kPlaneWords;
  std::uint32_t saved = 0;
  for (const auto& [field, empty] : fields) {
    const std::uint16_t all = field_of_row(row, words, field);
    const auto rest = static_cast<std::uint16_t>(all & ~empty);
    saved += static_cast<std::uint32_t>(std::max(1, std::popcount(all)) -
                                        std::max(1, std::popcount(rest)));
  }
  return saved;
}

}  // namespace tfmbs::kernels
