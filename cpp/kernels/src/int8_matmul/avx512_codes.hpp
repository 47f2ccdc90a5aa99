// How lines of weights become codes t + 1, of two bits each: quads hold them, fives are decoded.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "panels.hpp"
#include "tfmbs/format/five_code.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr std::size_t kLineOutputs = 16;
constexpr std::size_t kPanelLines = kPanelOutputs / kLineOutputs;
// Four groups of fives are five of quads (decode_fives).
constexpr std::size_t kFiveUnitGroups = 4;
constexpr std::size_t kFiveUnitQuads = 5;
constexpr std::size_t kFiveUnitDepths = 80;

// Bytes ahead of what is read: lines from memory are fetched into the second cache, and from there
// into the first. Beyond the end it is harmless.
constexpr int kFarAhead = 12288;
constexpr int kNearAhead = 5120;

// In the order that the assembly loads them in.
struct alignas(64) FiveDecoder {
  std::uint8_t masks[4][64];  // that leave trit i of a byte of codes
  std::uint8_t pairs[128];    // by the low seven bits: codes of the first four trits of v >= 0
  std::uint8_t fifths[64];    // by the low six bits: the fifth trit's code
  std::uint8_t twos[64];      // codes of 2: where v < 0, each of the first four codes c is 2 - c
};
static_assert(sizeof(FiveDecoder) == std::size_t{8} * 64);

// How a line of 64 bytes becomes codes. `pairs` gives four codes a byte, two bits each, and `fifth`
// the fifth where there is one.
// `fetch_ahead` is for rows so few that reading sets the pace; beyond the end it is harmless.
struct Quads {
  static constexpr std::size_t kGroup = 16;
  static constexpr bool kFive = false;
  Quads() = default;
  struct Line {
    __m512i pairs;
    __m512i fifth;
  };
  inline __attribute__((always_inline)) Line load(const std::uint8_t* line) const {
    return {_mm512_load_si512(line), _mm512_setzero_si512()};
  }
  static inline __attribute__((always_inline)) void fetch_ahead(const std::uint8_t* line) {
    constexpr std::size_t kAhead = 4096;  // bytes
    _mm_prefetch(reinterpret_cast<const char*>(line) + kAhead, _MM_HINT_T0);
  }
};

constexpr FiveDecoder kDecoder = [] {
  FiveDecoder decoder{};
  for (int i = 0; i < 4; ++i) {
    for (std::uint8_t& mask : decoder.masks[i]) mask = static_cast<std::uint8_t>(3 << 2 * i);
  }
  for (int byte = 0; byte < 128; ++byte) {
    int rest = five_code::magnitude(byte) + 40;
    for (int i = 0; i < 4; ++i, rest /= 3) {
      decoder.pairs[byte] = static_cast<std::uint8_t>(decoder.pairs[byte] | rest % 3 << 2 * i);
    }
  }
  for (int byte = 0; byte < 64; ++byte) {
    decoder.fifths[byte] = static_cast<std::uint8_t>(five_code::fifth(byte) + 1);
  }
  for (std::uint8_t& two : decoder.twos) two = 0xAA;
  return decoder;
}();

// The permutations ignore the bits above those of their index. Where the sign is set, each of the
// first four codes c is 2 - c.
struct Fives {
  static constexpr std::size_t kGroup = 20;
  static constexpr bool kFive = true;
  __m512i pairs_low = _mm512_load_si512(kDecoder.pairs);
  __m512i pairs_high = _mm512_load_si512(kDecoder.pairs + 64);
  __m512i fifths = _mm512_load_si512(kDecoder.fifths);
  struct Line {
    __m512i pairs;
    __m512i fifth;
  };
  inline __attribute__((always_inline)) Line load(const std::uint8_t* line) const {
    const __m512i bytes = _mm512_load_si512(line);
    const __mmask64 negative = _mm512_movepi8_mask(bytes);
    const __m512i fifth = _mm512_permutexvar_epi8(bytes, fifths);
    const __m512i pairs = _mm512_permutex2var_epi8(pairs_low, bytes, pairs_high);
    return {_mm512_mask_sub_epi8(pairs, negative, _mm512_load_si512(kDecoder.twos), pairs), fifth};
  }
  static inline __attribute__((always_inline)) void fetch_ahead(const std::uint8_t* line) {
    _mm_prefetch(reinterpret_cast<const char*>(line) + kFarAhead, _MM_HINT_T1);
    _mm_prefetch(reinterpret_cast<const char*>(line) + kNearAhead, _MM_HINT_T0);
  }
};

static_assert(kFiveUnitGroups * Fives::kGroup == kFiveUnitDepths &&
              kFiveUnitQuads * Quads::kGroup == kFiveUnitDepths);

// Fives as quads, for several rows: four groups' codes of four, then their fifth codes together.
__attribute__((noinline)) inline void decode_fives(const std::uint8_t* from, std::size_t lines,
                                                   std::size_t groups, std::size_t ahead,
                                                   std::uint8_t* to) {
  const Fives codes;
  const std::size_t step = lines * kPanelBytes;
  for (std::size_t g = 0; g < groups; g += kFiveUnitGroups) {
    const std::size_t held = groups - g < kFiveUnitGroups ? groups - g : kFiveUnitGroups;
    for (std::size_t c = 0; c < lines; ++c, from += kPanelBytes, to += kPanelBytes) {
      __m512i fifths = _mm512_setzero_si512();
#pragma GCC unroll 4
      for (std::size_t i = kFiveUnitGroups; i-- > 0;) {
        // Groups that a last unit lacks meet activations of zero.
        Fives::Line line{_mm512_setzero_si512(), _mm512_setzero_si512()};
        _mm_prefetch(reinterpret_cast<const char*>(from + i * step) + ahead, _MM_HINT_T1);
        if (i < held) line = codes.load(from + i * step);
        _mm512_store_si512(to + i * step, line.pairs);
        fifths = _mm512_or_si512(_mm512_slli_epi16(fifths, 2), line.fifth);
      }
      _mm512_store_si512(to + kFiveUnitGroups * step, fifths);
    }
    from += (kFiveUnitGroups - 1) * step;
    to += kFiveUnitGroups * step;
  }
}

}  // namespace
}  // namespace tfmbs::kernels::avx512
