// Fields of 15 bits as 16-bit lanes (AVX-512): one byte permutation and one multi-shift take 32
// fields, 480 bits, from two neighbouring blocks of a bit plane.
#pragma once

#include <immintrin.h>

#include "scalar.hpp"

namespace tfmbs::kernels {
namespace {

inline constexpr std::size_t kWindowFields = 32;
inline constexpr std::size_t kWindowBytes = kWindowFields * kFieldTrits / 8;
inline constexpr std::size_t kBlockBytes = kBlockTrits / 8;

struct WindowConstants {
  alignas(64) std::uint8_t bytes[64];   // 64-bit lane j: the eight bytes from bit 60 j on
  alignas(64) std::uint8_t shifts[64];  // where each byte of its four fields begins in them

  constexpr WindowConstants() : bytes{}, shifts{} {
    for (std::size_t j = 0; j < 8; ++j) {
      for (std::size_t i = 0; i < 8; ++i) {
        bytes[8 * j + i] = static_cast<std::uint8_t>(60 * j / 8 + i);
        shifts[8 * j + i] = static_cast<std::uint8_t>(60 * j % 8 + 15 * (i / 2) + 8 * (i % 2));
      }
    }
  }
};
inline constexpr WindowConstants kWindowConstants;

class FieldWindows {
 public:
  explicit FieldWindows(std::size_t trits)
      : blocks_(blocks_of(trits)),
        bytes_(_mm512_load_si512(kWindowConstants.bytes)),
        shifts_(_mm512_load_si512(kWindowConstants.shifts)) {}

  // Fields 32 w ... 32 w + 31 of a row's non-zero plane; zero beyond the row.
  __m512i window(const std::uint64_t* row, std::size_t w) const {
    const std::size_t byte = w * kWindowBytes;
    const std::size_t b = byte / kBlockBytes;
    const __m512i indices =
        _mm512_add_epi8(bytes_, _mm512_set1_epi8(static_cast<char>(byte % kBlockBytes)));
    const __m512i bits = _mm512_permutex2var_epi8(block(row, b), indices, block(row, b + 1));
    return _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts_, bits), _mm512_set1_epi16(0x7FFF));
  }

 private:
  __m512i block(const std::uint64_t* row, std::size_t b) const {
    return b < blocks_ ? _mm512_loadu_si512(row + b * kBlockWords) : _mm512_setzero_si512();
  }

  std::size_t blocks_;
  __m512i bytes_;
  __m512i shifts_;
};

}  // namespace
}  // namespace tfmbs::kernels
