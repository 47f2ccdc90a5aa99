// The bytes of weight panels (weight_panels.hpp), four of one output at a time: the unit of every
// layout is 16 depths, or 20 where a byte holds five, and stands in four bytes an output.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "tfmbs/format/five_code.hpp"
#include "tfmbs/format/weight_panels.hpp"

namespace tfmbs::panel_codes {

// Depths of a unit, and its lines of 64 bytes in a panel of 64 outputs.
constexpr std::size_t unit_depth(WeightLayout layout) noexcept { return 4 * trits_a_byte(layout); }
inline constexpr std::size_t kUnitBytes = 4;

// --- four codes in one word, byte by byte: the compiler does several outputs at once -------------

inline constexpr std::uint32_t kOnes = 0x01010101;

// Digit i of each byte, from a plane's bits of a unit.
template <WeightLayout kLayout>
constexpr std::uint32_t digit_bits(std::uint32_t window, std::size_t i) noexcept {
  if constexpr (is_int8(kLayout)) {
    const std::uint32_t x = window >> 4 * i & 15;
    return (x | x << 7 | x << 14 | x << 21) & kOnes;
  } else {
    constexpr std::size_t kTrits = trits_a_byte(kLayout);
    constexpr std::size_t kGap = 8 - kTrits;
    constexpr std::uint32_t kField = (1U << kTrits) - 1;
    const std::uint32_t fields = (window & kField) | (window & kField << kTrits) << kGap |
                                 (window & kField << 2 * kTrits) << 2 * kGap |
                                 (window & kField << 3 * kTrits) << 3 * kGap;
    return fields >> i & kOnes;
  }
}

// A byte of five_code.hpp in each: from v + 40 and, for t[4] = 0, +1, -1, the class 0, 1, 2.
constexpr std::uint32_t five_codes(std::uint32_t biased, std::uint32_t fifth) noexcept {
  const std::uint32_t u = biased + 88 * kOnes;  // the highest bit where v >= 0, and then v below it
  const std::uint32_t negative = ~u >> 7 & kOnes;
  const std::uint32_t mask = (negative << 7) - negative;  // of the low seven bits
  const std::uint32_t magnitude = ((u & 0x7F * kOnes) ^ mask) + negative;
  constexpr std::uint32_t kHalf = five_code::kMagnitudes;
  const std::uint32_t high = (magnitude + (128 - kHalf) * kOnes) >> 7 & kOnes;
  return (magnitude - kHalf * high + kHalf * fifth) | high << 6 | negative << 7;
}

// Byte j of the result is byte j of the unit.
template <WeightLayout kLayout>
constexpr std::uint32_t encode(std::uint32_t nonzero, std::uint32_t negative) noexcept {
  // t + 1 in each byte
  const auto digit = [&](std::size_t i) {
    return kOnes + digit_bits<kLayout>(nonzero, i) - 2 * digit_bits<kLayout>(negative, i);
  };
  if constexpr (kLayout == WeightLayout::kInt8Quads) {
    return digit(0) | digit(1) << 2 | digit(2) << 4 | digit(3) << 6;
  } else if constexpr (kLayout == WeightLayout::kTritPairs) {
    return (digit(0) + 3 * digit(1)) | (digit(2) + 3 * digit(3)) << 4;
  } else if constexpr (kLayout == WeightLayout::kTritQuads) {
    return digit(0) + 3 * (digit(1) + 3 * (digit(2) + 3 * digit(3)));
  } else {
    return five_codes(digit(0) + 3 * (digit(1) + 3 * (digit(2) + 3 * digit(3))),
                      digit_bits<kLayout>(nonzero, 4) + digit_bits<kLayout>(negative, 4));
  }
}

// --- and back ------------------------------------------------------------------------------------

// trits[i][byte]; a byte that is no code gives some trits.
struct Decoder {
  std::int8_t trits[5][256];
};

constexpr int digit_of(int value, int i) {
  for (; i > 0; --i) value /= 3;
  return value % 3;
}

template <typename Trit>
constexpr Decoder make_decoder(std::size_t count, Trit trit) {
  Decoder decoder{};
  for (std::size_t i = 0; i < count; ++i) {
    for (int byte = 0; byte < 256; ++byte) {
      decoder.trits[i][byte] = static_cast<std::int8_t>(trit(byte, static_cast<int>(i)));
    }
  }
  return decoder;
}

inline constexpr Decoder kDecodeQuads =
    make_decoder(4, [](int byte, int i) { return digit_of(byte, i) - 1; });
inline constexpr Decoder kDecodePairs = make_decoder(
    4, [](int byte, int i) { return digit_of(i < 2 ? byte & 15 : byte >> 4, i % 2) - 1; });
inline constexpr Decoder kDecodeTwoBits =
    make_decoder(4, [](int byte, int i) { return (byte >> 2 * i & 3) - 1; });
inline constexpr Decoder kDecodeFives = make_decoder(5, [](int byte, int i) {
  return i == 4 ? five_code::fifth(byte) : digit_of(five_code::first_four(byte) + 40, i) - 1;
});

// Every five trits come back, so their 243 bytes are distinct.
static_assert([] {
  for (int value = 0; value < 243; ++value) {
    std::uint32_t nonzero = 0;
    std::uint32_t negative = 0;
    for (int i = 0; i < 5; ++i) {
      nonzero |= static_cast<std::uint32_t>(digit_of(value, i) != 1) << i;
      negative |= static_cast<std::uint32_t>(digit_of(value, i) == 0) << i;
    }
    const std::uint32_t byte = encode<WeightLayout::kTritFives>(nonzero, negative) & 0xFF;
    for (int i = 0; i < 5; ++i) {
      if (kDecodeFives.trits[i][byte] != digit_of(value, i) - 1) return false;
    }
  }
  return true;
}());

constexpr const Decoder& decoder_of(WeightLayout layout) noexcept {
  switch (layout) {
    case WeightLayout::kTritQuads:
      return kDecodeQuads;
    case WeightLayout::kTritPairs:
      return kDecodePairs;
    case WeightLayout::kInt8Quads:
      return kDecodeTwoBits;
    case WeightLayout::kTritFives:
    case WeightLayout::kInt8Fives:
      break;
  }
  return kDecodeFives;
}

// A unit's bits of both planes from its bytes.
struct PlaneBits {
  std::uint32_t nonzero;
  std::uint32_t negative;
};

class PlaneDecoder {
 public:
  explicit PlaneDecoder(WeightLayout layout) noexcept
      : between_bytes_(is_int8(layout) ? 1 : trits_a_byte(layout)) {
    const Decoder& decoder = decoder_of(layout);
    const std::size_t between_trits = is_int8(layout) ? 4 : 1;
    for (std::size_t byte = 0; byte < bits_.size(); ++byte) {
      for (std::size_t i = 0; i < trits_a_byte(layout); ++i) {
        const std::int8_t trit = decoder.trits[i][byte];
        bits_[byte].nonzero |= static_cast<std::uint32_t>(trit != 0) << i * between_trits;
        bits_[byte].negative |= static_cast<std::uint32_t>(trit < 0) << i * between_trits;
      }
    }
  }
  // The unit's bytes, `step` apart; in a row's last one there may be fewer.
  PlaneBits operator()(const std::uint8_t* unit, std::size_t step,
                       std::size_t bytes) const noexcept {
    PlaneBits sum{};
    for (std::size_t j = 0; j < bytes; ++j) {
      sum.nonzero |= bits_[unit[j * step]].nonzero << j * between_bytes_;
      sum.negative |= bits_[unit[j * step]].negative << j * between_bytes_;
    }
    return sum;
  }

 private:
  std::array<PlaneBits, 256> bits_{};
  std::size_t between_bytes_;
};

}  // namespace tfmbs::panel_codes
