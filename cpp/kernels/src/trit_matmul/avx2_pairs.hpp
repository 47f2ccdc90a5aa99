// What AVX2's products of trits share: tables of 16 bytes, and how rows' activations become offsets
// of tables. Two activations pick a table, in which a nibble of weights looks up the sum of its two
// products. One byte shuffle does that for 32 outputs, and for two rows: a sum of two products is
// 0...4, biased, so a byte holds one row's in its low nibble and another's in its high one.
// Everything is in an anonymous namespace (docs/kernels.md, "One definition").
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "panels.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

constexpr int kBias = 2;           // makes a sum of two products unsigned, 0...4
constexpr std::size_t kCodes = 9;  // of two trits
constexpr std::size_t kTableBytes = 16;
// Lookups whose sums fit a nibble, and lines of them, 4 depths each, whose sums fit a byte.
constexpr std::size_t kNibbleRun = 3;
constexpr std::size_t kStepLines = 3;  // 2 * kNibbleRun lookups
constexpr std::size_t kRunLines = 30;
static_assert(kStepLines == kNibbleRun && kRunLines % kStepLines == 0);
static_assert(kNibbleRun * 2 * kBias <= 15);
static_assert(2 * kRunLines * 2 * kBias <= 255);
constexpr std::size_t kMostPairs = 4;   // of rows, whose sums stay in registers
constexpr std::size_t kBlockRows = 32;  // that share a block of activations
constexpr std::size_t kHalves = kPanelBytes / 32;
constexpr std::size_t kBlockCodes = kBlockTrits / 4;
constexpr std::size_t kChunkBlocks = 16;
constexpr std::size_t kChunkLines = kChunkBlocks * kBlockCodes;

// entries[a + 9 b][w]: the biased sum of the products of the pairs of trits a and w, and 16 times
// that of b and w. The last table is for no activations.
struct PairTables {
  std::uint8_t entries[kCodes * kCodes + 1][kTableBytes];
};
alignas(64) constexpr PairTables kPairTables = [] {
  PairTables tables{};
  const auto sum = [](std::size_t a, std::size_t w) {
    const auto trit = [](std::size_t code) { return static_cast<int>(code) - 1; };
    return kBias + trit(a % 3) * trit(w % 3) + trit(a / 3) * trit(w / 3);
  };
  for (std::size_t a = 0; a < kCodes; ++a) {
    for (std::size_t b = 0; b < kCodes; ++b) {
      for (std::size_t w = 0; w < kCodes; ++w) {
        tables.entries[a + kCodes * b][w] = static_cast<std::uint8_t>(sum(a, w) + 16 * sum(b, w));
      }
    }
  }
  return tables;
}();
// entries[a][w]: the biased sum of one row.
struct RowTables {
  std::uint8_t entries[kCodes][kTableBytes];
};
alignas(64) constexpr RowTables kRowTables = [] {
  RowTables tables{};
  for (std::size_t a = 0; a < kCodes; ++a) {
    for (std::size_t w = 0; w < kCodes; ++w) {
      tables.entries[a][w] = kPairTables.entries[a][w] % 16;
    }
  }
  return tables;
}();
// A table's offset is a byte, in units of 8 bytes: an address adds eight times a register.
constexpr std::size_t kOffsetUnit = 8;
constexpr std::uint8_t kTableUnits = kTableBytes / kOffsetUnit;
constexpr std::uint8_t kZeroTable = kCodes * kCodes * kTableUnits;
static_assert(kCodes * kCodes * kTableUnits <= 0xFF);

inline __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

inline __m256i repeat(__m128i lane) { return _mm256_broadcastsi128_si256(lane); }

// Byte 2 i of the result is low's i, byte 2 i + 1 high's.
struct Interleaved {
  __m256i first;
  __m256i second;
};
inline Interleaved interleave(__m256i low, __m256i high) {
  const __m256i a = _mm256_unpacklo_epi8(low, high);
  const __m256i b = _mm256_unpackhi_epi8(low, high);
  return {_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31)};
}

// The codes of 256 trits, two pairs a byte as of weights. A trit is its bit of `nonzero` minus
// twice that of `negative`, and so are the codes, above the code of zeros.
inline Interleaved encode(const std::uint64_t* words) {
  const __m256i sums = repeat(_mm_setr_epi8(0x00, 0x01, 0x03, 0x04, 0x10, 0x11, 0x13, 0x14, 0x30,
                                            0x31, 0x33, 0x34, 0x40, 0x41, 0x43, 0x44));
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i nonzero = load(words);
  const __m256i negative = load(words + kPlaneWords);
  __m256i halves[2];
  for (std::size_t h = 0; h < 2; ++h) {
    const __m256i x = h == 0 ? nonzero : _mm256_srli_epi16(nonzero, 4);
    const __m256i s = h == 0 ? negative : _mm256_srli_epi16(negative, 4);
    const __m256i plus = _mm256_shuffle_epi8(sums, _mm256_and_si256(x, nibble));
    const __m256i minus = _mm256_shuffle_epi8(sums, _mm256_and_si256(s, nibble));
    halves[h] = _mm256_sub_epi8(_mm256_add_epi8(plus, _mm256_set1_epi8(0x44)),
                                _mm256_add_epi8(minus, minus));
  }
  return interleave(halves[0], halves[1]);
}

// The offsets of the tables of 128 trits of rows a and b, a byte for two depths of both.
inline void table_offsets(__m256i a, __m256i b, std::uint8_t* offsets) {
  constexpr char kOne = kTableUnits;
  constexpr char kRow = static_cast<char>(kCodes * kTableUnits);
  const __m256i of_a = repeat(_mm_setr_epi8(0, kOne, 2 * kOne, 3 * kOne, 4 * kOne, 5 * kOne,
                                            6 * kOne, 7 * kOne, 8 * kOne, 0, 0, 0, 0, 0, 0, 0));
  const __m256i of_b = repeat(_mm_setr_epi8(0, kRow, 2 * kRow, 3 * kRow, 4 * kRow, 5 * kRow,
                                            6 * kRow, static_cast<char>(7 * kRow),
                                            static_cast<char>(8 * kRow), 0, 0, 0, 0, 0, 0, 0));
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i halves[2];
  for (std::size_t h = 0; h < 2; ++h) {
    const __m256i x = _mm256_and_si256(h == 0 ? a : _mm256_srli_epi16(a, 4), nibble);
    const __m256i y = _mm256_and_si256(h == 0 ? b : _mm256_srli_epi16(b, 4), nibble);
    halves[h] = _mm256_add_epi8(_mm256_shuffle_epi8(of_a, x), _mm256_shuffle_epi8(of_b, y));
  }
  const Interleaved both = interleave(halves[0], halves[1]);
  auto* to = reinterpret_cast<__m256i*>(offsets);
  _mm256_store_si256(to, both.first);
  _mm256_store_si256(to + 1, both.second);
}

// Two rows, or one: b is null.
inline void stage(const std::uint64_t* a, const std::uint64_t* b, std::size_t lines,
                  std::uint8_t* offsets) {
  constexpr std::size_t kLines = kBlockCodes / 2;  // that `encode` makes
  for (std::size_t line = 0; line < lines; line += kLines, offsets += 2 * kLines) {
    const std::size_t word =
        line / kBlockCodes * kBlockWords + line % kBlockCodes / kLines * (kPlaneWords / 2);
    const Interleaved of_a = encode(a + word);
    // One row's tables begin where those of both do that have code 0 for the other.
    const Interleaved of_b = b != nullptr
                                 ? encode(b + word)
                                 : Interleaved{_mm256_setzero_si256(), _mm256_setzero_si256()};
    table_offsets(of_a.first, of_b.first, offsets);
    table_offsets(of_a.second, of_b.second, offsets + kLines);
  }
}

struct Activations {
  // Of lines up to a multiple of kStepLines, and then some.
  static constexpr std::size_t kLines = kChunkLines + kBlockCodes / 2;
  static_assert(kLines >= kChunkLines + kStepLines - 1);
  alignas(64) std::uint8_t offsets[kBlockRows / 2][2 * kLines];
};

// NOLINTNEXTLINE(misc-const-correctness): the asm writes the sum
inline void add_bytes(__m256i& sum, __m256i bytes) {
  __asm__("vpaddb %1, %0, %0" : "+x"(sum) : "x"(bytes));  // compilers copy the sum
}
inline __m256i table(const std::uint8_t* tables, std::uint8_t offset) {
  return repeat(_mm_load_si128(reinterpret_cast<const __m128i*>(tables + kOffsetUnit * offset)));
}

// Sums of bytes of a pair of rows and half a panel. The words of `upper` hold, modulo 2^16,
// b[2i] + 16 a[2i + 1] + 256 b[2i + 1], for a shift by four of words is cheaper than one of bytes.
struct PairSums {
  __m256i lower;  // a
  __m256i upper;
};

// Lookups whose sums fit nibbles.
template <std::size_t kLookups>
inline __attribute__((always_inline)) void look_up(const std::uint8_t* offsets,
                                                   const __m256i (&weights)[kLookups],
                                                   PairSums& sums) {
  static_assert(kLookups <= kNibbleRun);
  const std::uint8_t* tables = kPairTables.entries[0];
  __m256i found = _mm256_shuffle_epi8(table(tables, offsets[0]), weights[0]);
#pragma GCC unroll 2
  for (std::size_t i = 1; i < kLookups; ++i) {
    add_bytes(found, _mm256_shuffle_epi8(table(tables, offsets[i]), weights[i]));
  }
  add_bytes(sums.lower, _mm256_and_si256(found, _mm256_set1_epi8(15)));
  const __m256i shifted = _mm256_srli_epi16(found, 4);
  __asm__("vpaddw %1, %0, %0" : "+x"(sums.upper) : "x"(shifted));
}

// kStepLines lines of half a panel.
template <std::size_t kPairs>
inline __attribute__((always_inline)) void step(const std::uint8_t* const* offsets, std::size_t at,
                                                const std::uint8_t* weights,
                                                PairSums (&sums)[kPairs]) {
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i nibbles[2][kNibbleRun];
#pragma GCC unroll 3
  for (std::size_t i = 0; i < kStepLines; ++i) {
    const __m256i line = load(weights + i * kPanelBytes);
    nibbles[2 * i / kNibbleRun][2 * i % kNibbleRun] = _mm256_and_si256(line, nibble);
    nibbles[(2 * i + 1) / kNibbleRun][(2 * i + 1) % kNibbleRun] =
        _mm256_and_si256(_mm256_srli_epi16(line, 4), nibble);
  }
#pragma GCC unroll 4
  for (std::size_t p = 0; p < kPairs; ++p) {
    look_up(offsets[p] + at, nibbles[0], sums[p]);
    look_up(offsets[p] + at + kNibbleRun, nibbles[1], sums[p]);
  }
}

}  // namespace
}  // namespace tfmbs::kernels::avx2
