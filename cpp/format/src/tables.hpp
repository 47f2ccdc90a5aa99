// Look-up tables of the codecs, made by the compiler from their definitions.
#pragma once

#include <array>
#include <cstdint>

#include "tfmbs/format/pt5.hpp"

namespace tfmbs {

// Byte i of kBitsToBytes[b] is bit i of b.
inline constexpr auto kBitsToBytes = [] {
  std::array<std::uint64_t, 256> table{};
  for (std::uint32_t bits = 0; bits < 256; ++bits) {
    for (std::uint32_t i = 0; i < 8; ++i) {
      table[bits] |= std::uint64_t{bits >> i & 1} << (8 * i);
    }
  }
  return table;
}();

// The five trits of a PT-5 byte as int8 in the low five bytes. Entries 243...255 are never used
// for data: callers check first.
inline constexpr auto kCodeToTrits = [] {
  std::array<std::uint64_t, 256> table{};
  for (std::uint32_t code = 0; code < kPt5Codes; ++code) {
    std::uint32_t rest = code;
    for (std::uint32_t i = 0; i < kTritsPerByte; ++i, rest /= 3) {
      table[code] |= std::uint64_t{static_cast<std::uint8_t>(digit_trit(rest % 3))} << (8 * i);
    }
  }
  return table;
}();

// The masks of a PT-5 byte: nonzero in bits 0...4, negative in bits 16...20.
inline constexpr auto kCodeToMasks = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t code = 0; code < kPt5Codes; ++code) {
    std::uint32_t rest = code;
    for (std::uint32_t i = 0; i < kTritsPerByte; ++i, rest /= 3) {
      const std::uint32_t digit = rest % 3;
      table[code] |= (digit != 0 ? 1U << i : 0U) | (digit == 2 ? 1U << (16 + i) : 0U);
    }
  }
  return table;
}();

// The PT-5 byte of five trits, by nonzero | negative << 5.
inline constexpr auto kMasksToCode = [] {
  std::array<std::uint8_t, 1024> table{};
  for (std::uint32_t masks = 0; masks < 1024; ++masks) {
    std::uint32_t code = 0;
    for (std::uint32_t i = kTritsPerByte; i-- > 0;) {
      const bool nonzero = (masks >> i & 1) != 0;
      const bool negative = (masks >> (5 + i) & 1) != 0;
      code = code * 3 + (!nonzero ? 0U : negative ? 2U : 1U);
    }
    table[masks] = static_cast<std::uint8_t>(code);
  }
  return table;
}();

// Both masks of a word: nonzero in bits 0...14, negative in bits 16...30.
[[nodiscard]] constexpr std::uint32_t joined_masks(std::uint32_t word) noexcept {
  return kCodeToMasks[word & 0xFF] | kCodeToMasks[word >> 8 & 0xFF] << 5 |
         kCodeToMasks[word >> 16 & 0xFF] << 10;
}

[[nodiscard]] constexpr std::uint32_t word_of(std::uint32_t nonzero,
                                              std::uint32_t negative) noexcept {
  const auto code = [&](std::uint32_t shift) -> std::uint32_t {
    return kMasksToCode[(nonzero >> shift & 31) | (negative >> shift & 31) << 5];
  };
  return code(0) | code(5) << 8 | code(10) << 16;
}

}  // namespace tfmbs
