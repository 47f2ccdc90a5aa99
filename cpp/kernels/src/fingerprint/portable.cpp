#include "tfmbs/kernels/fingerprint.hpp"

#include <cstring>

namespace tfmbs::kernels {
namespace {

constexpr std::size_t kLanes = 8;
constexpr std::size_t kStride = kLanes * 8;
constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15;  // odd, so that every step is a bijection

std::uint64_t load(const unsigned char* bytes) noexcept {
  std::uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

// A bijection of the lane and of the word. The product carries a difference upwards only; the shift
// brings it down again, as two bits that are not both signs of any float type: else one flipped sign
// could undo another, 64 bytes on.
std::uint64_t absorb(std::uint64_t lane, std::uint64_t word) noexcept {
  const std::uint64_t product = (lane ^ word) * kMultiplier;
  return product ^ (product >> 29);
}

// A bijection in which every bit of the input moves every bit of the output.
std::uint64_t finish(std::uint64_t x) noexcept {
  x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCD;
  x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53;
  return x ^ (x >> 33);
}

}  // namespace

std::uint64_t fingerprint(const void* data, std::size_t bytes) noexcept {
  const auto* cursor = static_cast<const unsigned char*>(data);
  std::uint64_t lanes[kLanes];
  for (std::size_t i = 0; i < kLanes; ++i) lanes[i] = finish(kMultiplier * (i + 1));

  std::size_t left = bytes;
  for (; left >= kStride; left -= kStride, cursor += kStride) {
    for (std::size_t i = 0; i < kLanes; ++i) lanes[i] = absorb(lanes[i], load(cursor + 8 * i));
  }
  std::size_t lane = 0;
  for (; left >= 8; left -= 8, cursor += 8, ++lane) lanes[lane] = absorb(lanes[lane], load(cursor));
  if (left > 0) {
    unsigned char tail[8] = {};
    std::memcpy(tail, cursor, left);
    lanes[lane] = absorb(lanes[lane], load(tail));
  }

  // The size tells a padded tail from one that ends in zeros.
  std::uint64_t hash = finish(bytes + kMultiplier);
  for (const std::uint64_t value : lanes) hash = absorb(hash, finish(value));
  return finish(hash);
}

}  // namespace tfmbs::kernels
