// vpdpbusd multiplies unsigned by signed bytes: a weight goes in as its code t + 1 in 0, 1, 2, and
// the row's sum of activations is subtracted in the end. Sums wrap modulo 2^32, the result fits.
#include <immintrin.h>

#include "int8_matmul/avx512_fives_row.hpp"
#include "operations.hpp"
#include "panels.hpp"
#include "tfmbs/format/five_code.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr std::size_t kLineOutputs = 16;
constexpr std::size_t kPanelLines = kPanelOutputs / kLineOutputs;
constexpr std::size_t kMaxRows = 8;     // whose sums stay in registers
constexpr std::size_t kBlockRows = 64;  // that share a block of activations, and decoded fives
constexpr std::size_t kQuadRows = 32;   // where nothing is decoded: chunks are twice as deep
constexpr std::size_t kBlockBytes = std::size_t{1} << 16;  // on the stack
// Four groups of fives are five of quads (decode_fives), and so many depths a chunk's unit.
constexpr std::size_t kUnitDepths = 80;
constexpr std::size_t kUnitGroups = 4;
constexpr std::size_t kDecodedUnits = 12;  // 15 KiB a panel: half of the nearest cache
// A single row's sums are kept scaled by up to 64: 4 * 2 * 64 * 127 a group of 16 depths.
static_assert(kBlockBytes / 16 * (std::size_t{4} * 2 * 64 * 127) <= 0x7FFFFFFF);

// Rows of a chunk of depths, padded with zeros to whole groups.
using Activations = ValueBlock<kBlockRows, kBlockBytes>;

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

inline void stage(const Int8MatmulArgs& args, std::size_t row, std::size_t rows, std::size_t first,
                  std::size_t depths, Activations& to) {
  const __m512i ones = _mm512_set1_epi8(1);
  for (std::size_t m = 0; m < rows; ++m) {
    const std::int8_t* from = args.activations + (row + m) * args.row_stride + first;
    std::int8_t* values = to.values + m * to.stride;
    __m512i sum = _mm512_setzero_si512();
    for (std::size_t k = 0; k < to.stride; k += 64) {
      const __mmask64 valid = k + 64 <= depths ? ~__mmask64{0}
                              : k < depths     ? (__mmask64{1} << (depths - k)) - 1
                                               : 0;
      const __m512i bytes = _mm512_maskz_loadu_epi8(valid, from + k);
      sum = _mm512_dpbusd_epi32(sum, ones, bytes);
      const __mmask64 room =
          k + 64 <= to.stride ? ~__mmask64{0} : (__mmask64{1} << (to.stride - k)) - 1;
      _mm512_mask_storeu_epi8(values + k, room, bytes);
    }
    to.sums[m] = _mm512_reduce_add_epi32(sum);
  }
}

// Units of 80 depths, each with the four fifth trits' activations of its groups last.
inline void stage_units(const Int8MatmulArgs& args, std::size_t row, std::size_t rows,
                        std::size_t first, std::size_t depths, Activations& to) {
  const __m512i ones = _mm512_set1_epi8(1);
  const __m512i four_each =
      _mm512_setr_epi32(0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18);
  const __m512i fifths = _mm512_setr_epi32(4, 9, 14, 19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  for (std::size_t m = 0; m < rows; ++m) {
    const std::int8_t* from = args.activations + (row + m) * args.row_stride + first;
    std::int8_t* values = to.values + m * to.stride;
    __m512i sum = _mm512_setzero_si512();
    for (std::size_t k = 0; k < to.stride; k += kUnitDepths) {
      const std::size_t left = depths - k;
      const __mmask64 valid = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
      const auto rest = static_cast<__mmask16>(left >= kUnitDepths ? 0xFFFFU
                                               : left <= 64        ? 0U
                                                                   : (1U << (left - 64)) - 1);
      const __m512i low = _mm512_maskz_loadu_epi8(valid, from + k);
      const __m512i high = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(rest, from + k + 64));
      sum = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum, ones, low), ones,
                                _mm512_zextsi128_si512(_mm512_castsi512_si128(high)));
      _mm512_storeu_si512(values + k, _mm512_permutex2var_epi32(low, four_each, high));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(values + k + 64),
                       _mm512_castsi512_si128(_mm512_permutex2var_epi32(low, fifths, high)));
    }
    to.sums[m] = _mm512_reduce_add_epi32(sum);
  }
}

// Sums of `rows` rows and `lines` lines, from memory: with the masks of the tail beside its loop
// the compiler would keep the sums there all the time.
__attribute__((noinline)) void store(const __m512i* sums, std::size_t rows, std::size_t lines,
                                     const std::int32_t* offsets, std::size_t line,
                                     const Output& to) {
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

// Fives as quads, for several rows: four groups' codes of four, then their fifth codes together.
__attribute__((noinline)) void decode_fives(const std::uint8_t* from, std::size_t lines,
                                            std::size_t groups, std::size_t ahead,
                                            std::uint8_t* to) {
  const Fives codes;
  const std::size_t step = lines * kPanelBytes;
  for (std::size_t g = 0; g < groups; g += kUnitGroups) {
    const std::size_t held = groups - g < kUnitGroups ? groups - g : kUnitGroups;
    for (std::size_t c = 0; c < lines; ++c, from += kPanelBytes, to += kPanelBytes) {
      __m512i fifths = _mm512_setzero_si512();
#pragma GCC unroll 4
      for (std::size_t i = kUnitGroups; i-- > 0;) {
        // Groups that a last unit lacks meet activations of zero.
        Fives::Line line{_mm512_setzero_si512(), _mm512_setzero_si512()};
        _mm_prefetch(reinterpret_cast<const char*>(from + i * step) + ahead, _MM_HINT_T1);
        if (i < held) line = codes.load(from + i * step);
        _mm512_store_si512(to + i * step, line.pairs);
        fifths = _mm512_or_si512(_mm512_slli_epi16(fifths, 2), line.fifth);
      }
      _mm512_store_si512(to + kUnitGroups * step, fifths);
    }
    from += (kUnitGroups - 1) * step;
    to += kUnitGroups * step;
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

// A chunk of a panel's depths stays in the nearest caches while every row of a block passes over
// it: fives that are decoded in the first, quads of 32 rows, 32 KB, in the second, which keeps up.
template <typename Codes>
void product(const Int8MatmulArgs& args) {
  const WeightPanelsView& weights = args.weights;
  Activations block;
  alignas(64) std::uint8_t decoded[Codes::kFive ? kDecodedUnits * (kUnitDepths / Quads::kGroup) *
                                                      kPanelLines * kPanelBytes
                                                : 1];
  constexpr std::size_t kMostRows = Codes::kFive ? kBlockRows : kQuadRows;
  for (std::size_t row = 0; row < args.rows; row += kMostRows) {
    const std::size_t rows = args.rows - row < kMostRows ? args.rows - row : kMostRows;
    // Chunks of even depths; without depths there is still a zero to write.
    const bool decode = Codes::kFive && rows > kMaxRows;
    const std::size_t room = kBlockBytes / rows / kUnitDepths;
    const std::size_t most = (decode && kDecodedUnits < room ? kDecodedUnits : room) * kUnitDepths;
    const std::size_t depth = weights.depth > 0 ? weights.depth : 1;
    const std::size_t chunks = (depth + most - 1) / most;
    const std::size_t chunk =
        ((depth + chunks - 1) / chunks + kUnitDepths - 1) / kUnitDepths * kUnitDepths;
    for (std::size_t first = 0; first < depth; first += chunk) {
      const std::size_t left = weights.depth - first;
      const std::size_t depths = left < chunk ? left : chunk;
      const std::size_t groups = (depths + Codes::kGroup - 1) / Codes::kGroup;
      const std::size_t units = (depths + kUnitDepths - 1) / kUnitDepths;
      if (decode) {
        block.stride = units * kUnitDepths;
        stage_units(args, row, rows, first, depths, block);
      } else {
        block.stride = groups * Codes::kGroup;
        stage(args, row, rows, first, depths, block);
      }
      for (std::size_t n = 0; n < args.outputs; n += kPanelOutputs) {
        const std::size_t held = args.outputs - n;
        const Panel panel =
            panel_of<Codes::kGroup, kLineOutputs>(weights, (args.first_output + n) / kPanelOutputs);
        const std::uint8_t* bytes = panel.bytes + first / Codes::kGroup * panel.lines * kPanelBytes;
        if (decode) decode_fives(bytes, panel.lines, groups, weights.panel_offset(1), decoded);
        for (std::size_t m = 0; m < rows; m += kMaxRows) {
          const std::size_t count = rows - m < kMaxRows ? rows - m : kMaxRows;
          const Output to{.out = args.out + (row + m) * args.out_stride + n,
                          .stride = args.out_stride,
                          .left = held,
                          .first = first == 0};
          if (decode) {
            panel_product<Quads>(block, m, count, decoded, panel.lines,
                                 block.stride / Quads::kGroup, to);
          } else {
            panel_product<Codes>(block, m, count, bytes, panel.lines, groups, to);
          }
        }
      }
    }
  }
}

}  // namespace

void int8_matmul(const Int8MatmulArgs& args) noexcept {
  if (args.weights.layout == WeightLayout::kInt8Fives) {
    product<Fives>(args);
  } else {
    product<Quads>(args);
  }
}

}  // namespace tfmbs::kernels::avx512
