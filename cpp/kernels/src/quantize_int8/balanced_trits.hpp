// The balanced trits of small integers as bits, for the tables of quantize_int8.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::kernels {
namespace {

// Bit p is plane p, the most significant first: bit 0 has weight 3^5.
struct TritBits {
  std::uint8_t nonzero;
  std::uint8_t negative;
};

constexpr TritBits balanced_trits(int value) {
  TritBits bits{0, 0};
  for (std::size_t p = kInt8Planes; p-- > 0;) {
    int digit = value % 3;  // -2...2
    if (digit == 2) digit = -1;
    if (digit == -2) digit = 1;
    value = (value - digit) / 3;
    if (digit != 0) bits.nonzero = static_cast<std::uint8_t>(bits.nonzero | 1U << p);
    if (digit < 0) bits.negative = static_cast<std::uint8_t>(bits.negative | 1U << p);
  }
  return bits;
}
// 127 = 243 - 81 - 27 - 9 + 1
static_assert(balanced_trits(127).nonzero == 0b101111 && balanced_trits(127).negative == 0b001110);

// For values 0...kSize-1. A negative value has the same nonzero bits, and the others of them
// negative.
template <std::size_t kSize>
struct TritTable {
  alignas(64) std::uint8_t nonzero[kSize];
  alignas(64) std::uint8_t negative[kSize];

  constexpr TritTable() : nonzero{}, negative{} {
    for (std::size_t i = 0; i < kSize; ++i) {
      nonzero[i] = balanced_trits(static_cast<int>(i)).nonzero;
      negative[i] = balanced_trits(static_cast<int>(i)).negative;
    }
  }
};

}  // namespace
}  // namespace tfmbs::kernels
