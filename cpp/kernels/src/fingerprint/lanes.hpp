// The fingerprint: sixteen 64-bit lanes absorb a word each in turn, so that 128 bytes are one step
// of two AVX-512 registers. Every step is a bijection of the lane and of the word, and so is what
// follows: a change of one word always changes the result.
#pragma once

#include "scalar.hpp"

namespace tfmbs::kernels {
namespace {

inline constexpr std::size_t kHashLanes = 16;
inline constexpr std::size_t kHashStride = kHashLanes * 8;
inline constexpr std::uint64_t kHashMultiplier = 0x9E3779B97F4A7C15;  // odd
// The product carries a difference upwards only; this shift brings it down again, as two bits that
// are not both signs of any float type: else one flipped sign could undo another, one stride on.
inline constexpr int kHashShift = 29;

inline std::uint64_t load_word(const unsigned char* bytes) {
  std::uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

inline std::uint64_t absorb(std::uint64_t lane, std::uint64_t word) {
  const std::uint64_t product = (lane ^ word) * kHashMultiplier;
  return product ^ (product >> kHashShift);
}

// A bijection in which every bit of the input moves every bit of the output.
inline std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCD;
  x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53;
  return x ^ (x >> 33);
}

inline void start_lanes(std::uint64_t (&lanes)[kHashLanes]) {
  for (std::size_t i = 0; i < kHashLanes; ++i) lanes[i] = kHashMultiplier * (2 * i + 1);
}

// Takes the bytes after the last whole stride. The size tells a padded tail from one that ends in
// zeros.
inline std::uint64_t finish_lanes(std::uint64_t (&lanes)[kHashLanes], const unsigned char* tail,
                                  std::size_t bytes) {
  std::size_t left = bytes % kHashStride;
  std::size_t lane = 0;
  for (; left >= 8; left -= 8, tail += 8, ++lane)
    lanes[lane] = absorb(lanes[lane], load_word(tail));
  if (left > 0) {
    unsigned char padded[8] = {};
    std::memcpy(padded, tail, left);
    lanes[lane] = absorb(lanes[lane], load_word(padded));
  }
  std::uint64_t hash = mix(bytes + kHashMultiplier);
  for (std::size_t i = 0; i < kHashLanes; ++i) hash = absorb(hash, mix(lanes[i]));
  return mix(hash);
}

}  // namespace
}  // namespace tfmbs::kernels
