// PT-5: five trits a byte, and the 32-bit fabric word of three such bytes (docs/format.md).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tfmbs/format/error.hpp"

#pragma GCC visibility push(default)

namespace tfmbs {

inline constexpr std::size_t kTritsPerByte = 5;
inline constexpr std::size_t kTritsPerWord = 15;
inline constexpr std::size_t kBytesPerWord = 4;
inline constexpr std::uint32_t kPt5Codes = 243;  // 3^5; bytes 243..255 are encoding faults

// Digit of a trit: 0 -> 0, +1 -> 1, -1 -> 2.
[[nodiscard]] constexpr std::uint8_t trit_digit(int trit) noexcept {
  return trit < 0 ? std::uint8_t{2} : static_cast<std::uint8_t>(trit);
}
[[nodiscard]] constexpr std::int8_t digit_trit(std::uint32_t digit) noexcept {
  return digit == 2 ? std::int8_t{-1} : static_cast<std::int8_t>(digit);
}

[[nodiscard]] constexpr std::size_t pt5_bytes(std::size_t trits) noexcept {
  return (trits + kTritsPerByte - 1) / kTritsPerByte;
}
[[nodiscard]] constexpr std::size_t pt5_words(std::size_t trits) noexcept {
  return (trits + kTritsPerWord - 1) / kTritsPerWord;
}

// Packs trits (each -1, 0 or +1) into pt5_bytes(trits.size()) bytes, first trit in the lowest
// digit, the tail padded with zeros. Errors: kInvalidArgument with the index of the first value
// that is no trit, or when `bytes` has another size; `bytes` is then unspecified.
Status pack_pt5(std::span<const std::int8_t> trits, std::span<std::uint8_t> bytes);

// Unpacks the first trits.size() trits of pt5_bytes(trits.size()) bytes. Errors: kEncoding with the
// offset of the first byte above 242 (padding digits of the last byte may hold anything valid),
// kInvalidArgument for a wrong size.
Status unpack_pt5(std::span<const std::uint8_t> bytes, std::span<std::int8_t> trits);

// Is this a fabric word: top byte zero, three PT-5 bytes?
[[nodiscard]] constexpr bool is_fabric_word(std::uint32_t word) noexcept {
  return (word >> 24) == 0 && (word & 0xFF) < kPt5Codes && ((word >> 8) & 0xFF) < kPt5Codes &&
         ((word >> 16) & 0xFF) < kPt5Codes;
}
// Errors: kEncoding with `base_offset` + the byte offset of the first fault.
Status check_fabric_words(std::span<const std::uint32_t> words, std::uint64_t base_offset);

// The trits of a valid word as two 15-bit masks, bit i for trit i.
struct WordMasks {
  std::uint16_t nonzero{0};
  std::uint16_t negative{0};
};
[[nodiscard]] WordMasks word_masks(std::uint32_t word) noexcept;
[[nodiscard]] std::uint32_t word_from_masks(WordMasks masks) noexcept;

}  // namespace tfmbs

#pragma GCC visibility pop
