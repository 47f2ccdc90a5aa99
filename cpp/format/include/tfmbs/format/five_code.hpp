// The byte that holds five trits t[0]...t[4] of one output in weight panels, made so that a table
// of 128 bytes and one of 64 decode it:
//   low six bits  21 c + m mod 21, where c = 0, 1, 2 stands for t[4] = 0, +1, -1
//   bit 6         m >= 21
//   bit 7         v < 0
// where v = sum of t[i] * 3^i, i = 0...3, and m = |v| <= 40. So the low six bits alone say t[4],
// the low seven m, and the highest negates the first four trits. Zero trits are a zero byte. Bytes
// with m = 41, with 63 in the low six bits, or with a sign and m = 0 are not written.
#pragma once

#pragma GCC visibility push(default)

namespace tfmbs::five_code {

inline constexpr int kMagnitudes = 21;  // a class of t[4]

// m of the low seven bits.
constexpr int magnitude(int byte) noexcept {
  return (byte & 63) % kMagnitudes + (byte >> 6 & 1) * kMagnitudes;
}
// v.
constexpr int first_four(int byte) noexcept {
  return (byte & 0x80) != 0 ? -magnitude(byte) : magnitude(byte);
}
// t[4] of the low six bits.
constexpr int fifth(int byte) noexcept {
  const int c = (byte & 63) / kMagnitudes % 3;
  return c == 2 ? -1 : c;
}

}  // namespace tfmbs::five_code

#pragma GCC visibility pop
