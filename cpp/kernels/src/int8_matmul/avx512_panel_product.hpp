// Up to eight rows times a panel, by dot products.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "int8_matmul/avx512_codes.hpp"
#include "int8_matmul/avx512_fives_row.hpp"
#include "int8_matmul/avx512_staging.hpp"
#include "panels.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr std::size_t kMaxRows = 8;  // whose sums stay in registers
// A single row's sums are kept scaled by up to 64: 4 * 2 * 64 * 127 a group of 16 depths.
static_assert(kBlockBytes / 16 * (std::size_t{4} * 2 * 64 * 127) <= 0x7FFFFFFF);

// The instruction itself: of the intrinsic's sums the compiler keeps copies, and spills them.
// NOLINTNEXTLINE(misc-const-correctness): the asm writes it
inline __attribute__((always_inline)) void dot(__m512i& sum, __m512i codes, __m512i values) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(values));
}

inline __m512i broadcast(const std::int8_t* four) {
  std::int32_t value = 0;
  __builtin_memcpy(&value, four, sizeof value);
  return _mm512_set1_epi32(value);
}

// Sums of `rows` rows and `lines` lines, from memory: with the masks of the tail beside its loop
// the compiler would keep the sums there all the time.
__attribute__((noinline)) inline void store(const __m512i* sums, std::size_t rows,
                                            std::size_t lines, const std::int32_t* offsets,
                                            std::size_t line, const Output& to) {
  for (std::size_t m = 0; m < rows; ++m) {
    const __m512i offset = _mm512_set1_epi32(offsets[m]);
    for (std::size_t c = 0; c < lines; ++c) {
      const std::size_t at = (line + c) * kLineOutputs;
      if (at >= to.left) break;
      const std::size_t left = to.left - at;
      const auto mask = static_cast<__mmask16>(left < kLineOutputs ? (1U << left) - 1 : 0xFFFFU);
      std::int32_t* out = to.out + m * to.stride + at;
      __m512i sum = _mm512_sub_epi32(sums[m * lines + c], offset);
      if (!to.first) sum = _mm512_add_epi32(sum, _mm512_maskz_loadu_epi32(mask, out));
      _mm512_mask_storeu_epi32(out, mask, sum);
    }
  }
}

// A row's sums of codes i of each byte, scaled by 4^i: shifted back once.
template <std::size_t kLines>
inline void store_scaled(const __m512i (&sums)[kLines][4], std::int32_t offset, const Output& to) {
  __m512i results[kLines];
#pragma GCC unroll 4
  for (std::size_t c = 0; c < kLines; ++c) {
    const __m512i low = _mm512_add_epi32(sums[c][0], _mm512_srai_epi32(sums[c][1], 2));
    const __m512i high =
        _mm512_add_epi32(_mm512_srai_epi32(sums[c][2], 4), _mm512_srai_epi32(sums[c][3], 6));
    results[c] = _mm512_add_epi32(low, high);
  }
  store(results, 1, kLines, &offset, 0, to);
}

// One row times a panel, with masks instead of shifts.
template <typename Codes, std::size_t kLines>
__attribute__((noinline)) void one_row(const std::int8_t* activations, const std::uint8_t* panel,
                                       std::size_t groups, std::int32_t offset, const Output& to) {
  __m512i sums[kLines][4];
#pragma GCC unroll 4
  for (std::size_t c = 0; c < kLines; ++c) {
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 4; ++i) sums[c][i] = _mm512_setzero_si512();
  }
  if constexpr (Codes::kFive && kLines == kPanelLines) {
    if (groups > 0) fives_row(activations, panel, groups, kDecoder, sums);
  } else {
    const Codes codes;
    __m512i masks[4];
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 4; ++i) masks[i] = _mm512_load_si512(kDecoder.masks[i]);
    for (std::size_t g = 0; g < groups; ++g, activations += Codes::kGroup) {
      __m512i inputs[5];
#pragma GCC unroll 5
      for (std::size_t i = 0; i < Codes::kGroup / 4; ++i) {
        inputs[i] = broadcast(activations + 4 * i);
      }
#pragma GCC unroll 4
      for (std::size_t c = 0; c < kLines; ++c, panel += kPanelBytes) {
        codes.fetch_ahead(panel);
        const auto line = codes.load(panel);
#pragma GCC unroll 4
        for (std::size_t i = 0; i < 4; ++i) {
          dot(sums[c][i], _mm512_and_si512(line.pairs, masks[i]), inputs[i]);
        }
        if constexpr (Codes::kFive) {
          dot(sums[c][0], line.fifth, inputs[4]);
        }
      }
    }
  }
  store_scaled(sums, offset, to);
}

// kRows rows times kLines lines of a panel. Codes are brought to the low bits once for all rows;
// that work goes to the ports that the dot products leave free.
template <typename Codes, std::size_t kRows, std::size_t kLines>
__attribute__((noinline)) void some_rows(const Activations& from, std::size_t row,
                                         const std::uint8_t* panel, std::size_t step,
                                         std::size_t groups, std::size_t line, const Output& to) {
  const Codes codes;
  const __m512i low_bits = _mm512_set1_epi8(3);
  __m512i sums[kRows][kLines];
#pragma GCC unroll 8
  for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
    for (std::size_t c = 0; c < kLines; ++c) sums[m][c] = _mm512_setzero_si512();
  }
  const std::int8_t* activations = from.values + row * from.stride;
  panel += line * kPanelBytes;
  for (std::size_t g = 0; g < groups; ++g, activations += Codes::kGroup, panel += step) {
    typename Codes::Line lines[kLines];
#pragma GCC unroll 2
    for (std::size_t c = 0; c < kLines; ++c) {
      if constexpr (Codes::kFive) codes.fetch_ahead(panel + c * kPanelBytes);
      lines[c] = codes.load(panel + c * kPanelBytes);
    }
#pragma GCC unroll 5
    for (std::size_t i = 0; i < Codes::kGroup / 4; ++i) {
      __m512i weights[kLines];
#pragma GCC unroll 2
      for (std::size_t c = 0; c < kLines; ++c) {
        weights[c] = i == 4 ? lines[c].fifth : _mm512_and_si512(lines[c].pairs, low_bits);
        lines[c].pairs = _mm512_srli_epi16(lines[c].pairs, 2);
      }
#pragma GCC unroll 8
      for (std::size_t m = 0; m < kRows; ++m) {
        const __m512i input = broadcast(activations + m * from.stride + 4 * i);
#pragma GCC unroll 2
        for (std::size_t c = 0; c < kLines; ++c) {
          dot(sums[m][c], weights[c], input);
        }
      }
    }
  }
  __m512i results[kRows * kLines];
#pragma GCC unroll 8
  for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
    for (std::size_t c = 0; c < kLines; ++c) results[m * kLines + c] = sums[m][c];
  }
  store(results, kRows, kLines, from.sums + row, line, to);
}

template <typename Codes, std::size_t kRows>
void rows_by_panel(const Activations& from, std::size_t row, const std::uint8_t* panel,
                   std::size_t lines, std::size_t groups, const Output& to) {
  const std::size_t step = lines * kPanelBytes;
  std::size_t c = 0;
  for (; c + 2 <= lines; c += 2) {
    some_rows<Codes, kRows, 2>(from, row, panel, step, groups, c, to);
  }
  if (c < lines) some_rows<Codes, kRows, 1>(from, row, panel, step, groups, c, to);
}

template <typename Codes>
void panel_product(const Activations& from, std::size_t row, std::size_t rows,
                   const std::uint8_t* panel, std::size_t lines, std::size_t groups,
                   const Output& to) {
  switch (rows) {
    case 1:
      switch (lines) {
        case 1:
          return one_row<Codes, 1>(from.values + row * from.stride, panel, groups, from.sums[row],
                                   to);
        case 2:
          return one_row<Codes, 2>(from.values + row * from.stride, panel, groups, from.sums[row],
                                   to);
        case 3:
          return one_row<Codes, 3>(from.values + row * from.stride, panel, groups, from.sums[row],
                                   to);
        default:
          return one_row<Codes, 4>(from.values + row * from.stride, panel, groups, from.sums[row],
                                   to);
      }
    case 2:
      return rows_by_panel<Codes, 2>(from, row, panel, lines, groups, to);
    case 3:
      return rows_by_panel<Codes, 3>(from, row, panel, lines, groups, to);
    case 4:
      return rows_by_panel<Codes, 4>(from, row, panel, lines, groups, to);
    case 5:
      return rows_by_panel<Codes, 5>(from, row, panel, lines, groups, to);
    case 6:
      return rows_by_panel<Codes, 6>(from, row, panel, lines, groups, to);
    case 7:
      return rows_by_panel<Codes, 7>(from, row, panel, lines, groups, to);
    default:
      return rows_by_panel<Codes, 8>(from, row, panel, lines, groups, to);
  }
}

}  // namespace
}  // namespace tfmbs::kernels::avx512
