// Eight bytes as one integer, first byte lowest, whatever the machine's byte order.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace tfmbs {

[[nodiscard]] constexpr std::uint64_t little_endian(std::uint64_t value) noexcept {
  if constexpr (std::endian::native == std::endian::little) {
    return value;
  } else {
    std::uint64_t swapped = 0;
    for (int i = 0; i < 8; ++i) {
      swapped = swapped << 8 | (value >> (8 * i) & 0xFF);
    }
    return swapped;
  }
}

[[nodiscard]] inline std::uint64_t load_bytes(const void* from) noexcept {
  std::uint64_t value = 0;
  std::memcpy(&value, from, sizeof(value));
  return little_endian(value);
}

inline void store_bytes(void* to, std::uint64_t value) noexcept {
  value = little_endian(value);
  std::memcpy(to, &value, sizeof(value));
}

// A 1 in each of the eight bytes.
inline constexpr std::uint64_t kOnes = 0x0101010101010101;

// Eight trits of int8, a byte each. 0x00, 0x01 and 0xFF are trits.
struct TritBytes {
  std::uint64_t value;

  [[nodiscard]] constexpr std::uint64_t nonzero() const noexcept { return value & kOnes; }
  [[nodiscard]] constexpr std::uint64_t negative() const noexcept { return value >> 7 & kOnes; }
  // A byte is a trit exactly if it is what its lowest and its highest bit say.
  [[nodiscard]] constexpr bool valid() const noexcept {
    return value == ((nonzero() & ~negative()) | negative() * 0xFF);
  }
};
[[nodiscard]] constexpr bool is_trit(std::int8_t value) noexcept {
  return value >= -1 && value <= 1;
}

// Bit i of the result is the lowest bit of byte i. The other bits of `ones` are 0; then no two
// partial products meet at one bit, and nothing carries.
[[nodiscard]] constexpr std::uint64_t gather_bits(std::uint64_t ones) noexcept {
  return (ones * 0x0102040810204080) >> 56;
}

}  // namespace tfmbs
