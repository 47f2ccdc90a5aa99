// Many rows times quads, faster than dot products alone can be: a quarter of the depths is looked
// up while the rest is multiplied.
//
// vpdpbusd takes two of Zen 4's four vector pipes, so what goes to the other two costs nothing: a
// permutation of words looks up sums of three products for 32 outputs, an addition collects them. A
// unit is three groups of quads. Of each byte the first three codes are multiplied; the fourth
// codes of the same byte of the three groups are one index of 27, into a table that is made for
// each row. docs/kernel-internals.md has the figures, and says why a quarter.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "int8_matmul/avx512_codes.hpp"
#include "int8_matmul/avx512_staging.hpp"
#include "panels.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr std::size_t kUnitGroups = 3;  // of quads, a unit
constexpr std::size_t kUnitDepths = kUnitGroups * Quads::kGroup;
constexpr std::size_t kUnitLookups = 4;     // threes, that are looked up
constexpr std::size_t kMostUnits = 20;      // of a chunk, at most
constexpr std::size_t kDotLookupRows = 64;  // of a block, at most
// A tile's sums stay in registers.
constexpr std::size_t kTileRows = 8;
constexpr std::size_t kTileLines = 2;
constexpr std::size_t kTileOutputs = kTileLines * kLineOutputs;
constexpr std::size_t kPanelTiles = kPanelLines / kTileLines;
static_assert(kDotLookupRows <= kBlockRows && kDotLookupRows % kTileRows == 0);
// What is looked up is collected in words, at most 3 * 127 a code.
static_assert(kMostUnits * kUnitLookups * 3 * 127 <= 0x7FFF);
// Operands of the assembly: the low two bits of bytes, and which of two words a dot product takes.
constexpr std::uint32_t kLowBits = 0x03030303;
constexpr std::uint32_t kEvenWords = 1;
constexpr std::uint32_t kOddWords = 1U << 16;

// What a block of rows' activations give, a chunk. Row 8 t + r is row r of tile t.
struct alignas(64) DotLookupActivations {
  std::int16_t tables[kDotLookupRows / kTileRows][kMostUnits][kUnitLookups][kTileRows][32];
  std::int8_t values[kDotLookupRows / kTileRows][kMostUnits][kTileRows][kUnitDepths];
  std::int32_t dot_sums[kDotLookupRows];  // of those that are multiplied
};

// A panel's chunk: `lines` where it cannot be read in place, and the indices into the tables. Word
// 2 i + c of indices[h][u][b] is of output i of line 2 h + c; only its low five bits count.
struct alignas(64) DotLookupPanel {
  std::uint8_t lines[kMostUnits * kUnitGroups * kPanelLines * kPanelBytes];
  alignas(64) std::uint8_t indices[kPanelTiles][kMostUnits][kUnitLookups][kPanelBytes];
};

// What dot_lookup_tile has as numbers.
static_assert(kTileRows == 8 && kTileLines == 2 && kUnitGroups == 3 && kUnitLookups == 4);
static_assert(kPanelBytes == 64 && Quads::kGroup == 16 && kUnitDepths == 48);
static_assert(sizeof(DotLookupActivations::tables[0][0]) == 2048 &&
              sizeof(DotLookupActivations::tables[0][0][0]) == 512 &&
              sizeof(DotLookupActivations::values[0][0]) == 384 &&
              sizeof(DotLookupPanel::indices[0][0]) == 256);

struct DotLookupScratch {
  DotLookupActivations activations;
  DotLookupPanel panel;
};

// Entry `code` of a table is x0 t0 + x1 t1 + x2 t2 with the code's trits t. vpdpbusd multiplies
// unsigned by signed bytes: an activation goes in as x + 128, and a fourth byte, 128, takes
// 128 (t0 + t1 + t2) off again. Its sums of 32 bits become words in the order of vpackssdw, four of
// the one and four of the other in turn.
struct alignas(64) CodeTrits {
  std::int8_t bytes[2][16][4];
};
constexpr CodeTrits kCodeTrits = [] {
  CodeTrits trits{};
  for (int code = 0; code < 27; ++code) {
    const int t[3] = {code % 3 - 1, code / 3 % 3 - 1, code / 9 - 1};
    auto& four = trits.bytes[code / 4 % 2][code / 8 * 4 + code % 4];
    for (int i = 0; i < 3; ++i) four[i] = static_cast<std::int8_t>(t[i]);
    four[3] = static_cast<std::int8_t>(-(t[0] + t[1] + t[2]));
  }
  return trits;
}();

inline __m512i table_of(std::int32_t activations) {
  const __m512i four = _mm512_set1_epi32(activations);
  const __m512i zero = _mm512_setzero_si512();
  return _mm512_packs_epi32(
      _mm512_dpbusd_epi32(zero, four, _mm512_load_si512(kCodeTrits.bytes[0])),
      _mm512_dpbusd_epi32(zero, four, _mm512_load_si512(kCodeTrits.bytes[1])));
}

// Row m of a block, `units` units of `values` in the order of quads' depths, whose sum is `sum`.
inline void stage_dot_lookup_row(const std::int8_t* values, std::size_t units, std::int32_t sum,
                                 std::size_t m, DotLookupActivations& to) {
  const std::size_t t = m / kTileRows;
  const std::size_t r = m % kTileRows;
  __m128i looked_up_sums = _mm_setzero_si128();
  for (std::size_t u = 0; u < units; ++u, values += kUnitDepths) {
    std::int32_t fourths[kUnitGroups];
    for (std::size_t g = 0; g < kUnitGroups; ++g) {
      __builtin_memcpy(to.values[t][u][r] + 16 * g, values + 16 * g, 16);
      __builtin_memcpy(&fourths[g], values + 16 * g + 12, 4);
    }
    const __m128i looked_up = _mm_setr_epi32(fourths[0], fourths[1], fourths[2], 0);
    looked_up_sums = _mm_dpbusd_epi32(looked_up_sums, _mm_set1_epi8(1), looked_up);
    // A code's three activations and the 128 beside each other.
    const __m128i by_code =
        _mm_shuffle_epi8(_mm_xor_si128(looked_up, _mm_set1_epi8(-128)),
                         _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 12, 2, 6, 10, 12, 3, 7, 11, 12));
    alignas(16) std::int32_t activations[kUnitLookups];
    _mm_store_si128(reinterpret_cast<__m128i*>(activations), by_code);
    __asm__ volatile("" : "+m"(activations));  // broadcast from memory, which takes no shuffle
    for (std::size_t b = 0; b < kUnitLookups; ++b) {
      _mm512_store_si512(to.tables[t][u][b][r], table_of(activations[b]));
    }
  }
  const __m128i pairs = _mm_add_epi32(looked_up_sums, _mm_srli_si128(looked_up_sums, 8));
  to.dot_sums[m] = sum - _mm_cvtsi128_si32(_mm_add_epi32(pairs, _mm_srli_si128(pairs, 4)));
}

// The code of each byte of a line: its fourth codes c in three groups, c0 + 3 c1 + 9 c2.
inline __m512i fourth_codes(const std::uint8_t* first, std::size_t group_bytes) {
  // By c0 + 4 c1 + 16 c2.
  alignas(64) static constexpr auto kByFours = [] {
    struct {
      std::uint8_t codes[64];
    } table{};
    for (int i = 0; i < 64; ++i) {
      table.codes[i] = static_cast<std::uint8_t>(i % 4 + 3 * (i / 4 % 4) + 9 * (i / 16));
    }
    return table;
  }();
  constexpr int kSelect = 0xCA;  // a ? b : c
  const __m512i c0 = _mm512_srli_epi16(_mm512_load_si512(first), 6);
  const __m512i c1 = _mm512_srli_epi16(_mm512_load_si512(first + group_bytes), 4);
  const __m512i c2 = _mm512_srli_epi16(_mm512_load_si512(first + 2 * group_bytes), 2);
  const __m512i low = _mm512_ternarylogic_epi32(_mm512_set1_epi8(0x03), c0, c1, kSelect);
  const __m512i all = _mm512_ternarylogic_epi32(_mm512_set1_epi8(0x0F), low, c2, kSelect);
  return _mm512_permutexvar_epi8(all, _mm512_load_si512(kByFours.codes));
}

// The indices of a panel whose groups have `lines` lines, 1 to 4. Of an odd number the last is used
// with the line behind it, which is the next group's or, in the end, room that a panel of 4 would
// take; what that gives is not used.
inline void index_panel(const std::uint8_t* panel, std::size_t lines, std::size_t units,
                        DotLookupPanel& to) {
  constexpr __mmask32 kOdd = 0xAAAAAAAA;
  const std::size_t group_bytes = lines * kPanelBytes;
  for (std::size_t u = 0; u < units; ++u, panel += kUnitGroups * group_bytes) {
    for (std::size_t h = 0; h * kTileLines < lines; ++h) {
      const std::uint8_t* first = panel + h * kTileLines * kPanelBytes;
      const __m512i even = fourth_codes(first, group_bytes);
      const __m512i odd = fourth_codes(first + kPanelBytes, group_bytes);
      const __m512i low = _mm512_mask_mov_epi16(even, kOdd, _mm512_slli_epi32(odd, 16));
      const __m512i high = _mm512_mask_mov_epi16(_mm512_srli_epi32(even, 16), kOdd, odd);
      auto& indices = to.indices[h][u];
      _mm512_store_si512(indices[0], low);
      _mm512_store_si512(indices[1], _mm512_srli_epi16(low, 8));
      _mm512_store_si512(indices[2], high);
      _mm512_store_si512(indices[3], _mm512_srli_epi16(high, 8));
    }
  }
}

// A tile's sums less their rows' offsets, for the first `left` outputs; a whole tile without masks.
template <bool kWhole>
inline __attribute__((always_inline)) void write_tile(const __m512i (&sums)[kTileRows][kTileLines],
                                                      const std::int32_t* offsets, std::size_t left,
                                                      std::int32_t* out, const Output& to) {
#pragma GCC unroll 8
  for (std::size_t r = 0; r < kTileRows; ++r, out += to.stride) {
    const __m512i offset = _mm512_set1_epi32(offsets[r]);
#pragma GCC unroll 2
    for (std::size_t c = 0; c < kTileLines; ++c) {
      std::int32_t* line = out + c * kLineOutputs;
      __m512i sum = _mm512_sub_epi32(sums[r][c], offset);
      if constexpr (kWhole) {
        if (!to.first) sum = _mm512_add_epi32(sum, _mm512_loadu_si512(line));
        _mm512_storeu_si512(line, sum);
      } else {
        const auto mask =
            static_cast<__mmask16>(((std::uint64_t{1} << left) - 1) >> c * kLineOutputs);
        if (!to.first) sum = _mm512_add_epi32(sum, _mm512_maskz_loadu_epi32(mask, line));
        _mm512_mask_storeu_epi32(line, mask, sum);
      }
    }
  }
}

// Tile t times half h of a panel whose lines begin at `panel`, aligned to 64; units >= 1. In
// assembly, for there is use for each of the 32 registers, and compilers keep copies.
__attribute__((noinline)) inline void dot_lookup_tile(
    const DotLookupActivations& from, std::size_t t, const std::uint8_t* panel, std::size_t lines,
    const DotLookupPanel& looked_up, std::size_t h, std::size_t units, const Output& to) {
  const std::uint8_t* line = panel + h * kTileLines * kPanelBytes;
  const void* values = from.values[t];
  const void* tables = from.tables[t];
  const void* indices = looked_up.indices[h];
  const std::size_t group_bytes = lines * kPanelBytes;
  __m512i sums[kTileRows][kTileLines];
  // zmm16-23 words by row, 24-25 lines, 26-27 codes to multiply, 28 activations, 29 the low two
  // bits of bytes, 30 indices, 31 what was found.
  __asm__ volatile(
      R"(
    # A row's four activations at `at` times the two lines, and the same beside a lookup.
    .macro tfmbs_dots at, first, second
      vpbroadcastd \at(%[values]), %%zmm28
      vpdpbusd %%zmm28, %%zmm26, \first
      vpdpbusd %%zmm28, %%zmm27, \second
    .endm
    .macro tfmbs_dots_and_lookup at, first, second, table, words
      vpbroadcastd \at(%[values]), %%zmm28
      vpdpbusd %%zmm28, %%zmm26, \first
      vpermw \table(%[tables]), %%zmm30, %%zmm31
      vpaddw %%zmm31, \words, \words
      vpdpbusd %%zmm28, %%zmm27, \second
    .endm
    # All rows' dot products beside the lookups of half the rows.
    .macro tfmbs_four at, table, words0, words1, words2, words3
      tfmbs_dots \at+0, %[s0], %[s1]
      tfmbs_dots_and_lookup \at+48, %[s2], %[s3], \table+0, \words0
      tfmbs_dots \at+96, %[s4], %[s5]
      tfmbs_dots_and_lookup \at+144, %[s6], %[s7], \table+64, \words1
      tfmbs_dots \at+192, %[s8], %[s9]
      tfmbs_dots_and_lookup \at+240, %[s10], %[s11], \table+128, \words2
      tfmbs_dots \at+288, %[s12], %[s13]
      tfmbs_dots_and_lookup \at+336, %[s14], %[s15], \table+192, \words3
    .endm
    .macro tfmbs_first_half at, table
      tfmbs_four \at, \table, %%zmm16, %%zmm17, %%zmm18, %%zmm19
    .endm
    .macro tfmbs_second_half at, table
      tfmbs_four \at, \table, %%zmm20, %%zmm21, %%zmm22, %%zmm23
    .endm
    .macro tfmbs_separate
      vpandd %%zmm24, %%zmm29, %%zmm26
      vpandd %%zmm25, %%zmm29, %%zmm27
    .endm
    .macro tfmbs_begin_group
      vmovdqa64 0(%[line]), %%zmm24
      vmovdqa64 64(%[line]), %%zmm25
      add %[group_bytes], %[line]
      tfmbs_separate
    .endm
    .macro tfmbs_next_codes
      vpsrlw $2, %%zmm24, %%zmm24
      vpsrlw $2, %%zmm25, %%zmm25
      tfmbs_separate
    .endm
    .macro tfmbs_indices at
      vmovdqa64 \at(%[indices]), %%zmm30
    .endm
    .irp sum, %[s0], %[s1], %[s2], %[s3], %[s4], %[s5], %[s6], %[s7], %[s8], %[s9], %[s10], %[s11], %[s12], %[s13], %[s14], %[s15], %%zmm16, %%zmm17, %%zmm18, %%zmm19, %%zmm20, %%zmm21, %%zmm22, %%zmm23
      vpxord \sum, \sum, \sum
    .endr
    vpbroadcastd %[low_bits], %%zmm29
    .p2align 6
  1:
    tfmbs_begin_group
    tfmbs_indices 0
    tfmbs_first_half 0, 0
    tfmbs_next_codes
    tfmbs_second_half 4, 256
    tfmbs_next_codes
    tfmbs_indices 64
    tfmbs_first_half 8, 512
    tfmbs_begin_group
    tfmbs_second_half 16, 768
    tfmbs_next_codes
    tfmbs_indices 128
    tfmbs_first_half 20, 1024
    tfmbs_next_codes
    tfmbs_second_half 24, 1280
    tfmbs_begin_group
    tfmbs_indices 192
    tfmbs_first_half 32, 1536
    tfmbs_next_codes
    tfmbs_second_half 36, 1792
    tfmbs_next_codes
    tfmbs_dots 40, %[s0], %[s1]
    tfmbs_dots 88, %[s2], %[s3]
    tfmbs_dots 136, %[s4], %[s5]
    tfmbs_dots 184, %[s6], %[s7]
    tfmbs_dots 232, %[s8], %[s9]
    tfmbs_dots 280, %[s10], %[s11]
    tfmbs_dots 328, %[s12], %[s13]
    tfmbs_dots 376, %[s14], %[s15]
    add $384, %[values]
    add $2048, %[tables]
    add $256, %[indices]
    dec %[units]
    jnz 1b

    # The even words belong to the first line, the odd ones to the second.
    .macro tfmbs_add_words words, first, second
      vpdpwssd %%zmm26, \words, \first
      vpdpwssd %%zmm27, \words, \second
    .endm
    vpbroadcastd %[even], %%zmm26
    vpbroadcastd %[odd], %%zmm27
    tfmbs_add_words %%zmm16, %[s0], %[s1]
    tfmbs_add_words %%zmm17, %[s2], %[s3]
    tfmbs_add_words %%zmm18, %[s4], %[s5]
    tfmbs_add_words %%zmm19, %[s6], %[s7]
    tfmbs_add_words %%zmm20, %[s8], %[s9]
    tfmbs_add_words %%zmm21, %[s10], %[s11]
    tfmbs_add_words %%zmm22, %[s12], %[s13]
    tfmbs_add_words %%zmm23, %[s14], %[s15]
    .irp name, dots, dots_and_lookup, four, first_half, second_half, separate, begin_group, next_codes, indices, add_words
      .purgem tfmbs_\name
    .endr
  )"
      : [s0] "=&v"(sums[0][0]), [s1] "=&v"(sums[0][1]), [s2] "=&v"(sums[1][0]),
        [s3] "=&v"(sums[1][1]), [s4] "=&v"(sums[2][0]), [s5] "=&v"(sums[2][1]),
        [s6] "=&v"(sums[3][0]), [s7] "=&v"(sums[3][1]), [s8] "=&v"(sums[4][0]),
        [s9] "=&v"(sums[4][1]), [s10] "=&v"(sums[5][0]), [s11] "=&v"(sums[5][1]),
        [s12] "=&v"(sums[6][0]), [s13] "=&v"(sums[6][1]), [s14] "=&v"(sums[7][0]),
        [s15] "=&v"(sums[7][1]), [line] "+&r"(line), [values] "+&r"(values), [tables] "+&r"(tables),
        [indices] "+&r"(indices), [units] "+&r"(units)
      : [group_bytes] "r"(group_bytes), [low_bits] "m"(kLowBits), [even] "m"(kEvenWords),
        [odd] "m"(kOddWords)
      : "memory", "cc", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23",
        "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31");
  const std::size_t left = to.left - h * kTileOutputs;
  std::int32_t* out = to.out + h * kTileOutputs;
  const std::int32_t* offsets = from.dot_sums + t * kTileRows;
  if (left >= kTileOutputs) {
    write_tile<true>(sums, offsets, left, out, to);
  } else {
    write_tile<false>(sums, offsets, left, out, to);
  }
}

}  // namespace
}  // namespace tfmbs::kernels::avx512
