// Tables look up the products of four trits (avx512_codes.hpp); their sums are collected in bytes,
// and in words of 16 bits, a chunk of depths.
#include <immintrin.h>

#include "operations.hpp"
#include "panels.hpp"
#include "tfmbs/format/five_code.hpp"
#include "trit_matmul/avx512_codes.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

// A word collects the sums of a chunk.
static_assert((kChunkCodes + kRun) * 2 * kBias <= 0xFFFF);

// The sums of one row and one panel. The words of `all` hold s[2i] + 256 * s[2i + 1], modulo 2^16,
// and those of `odd` s[2i + 1].
struct Sums {
  __m512i all;
  __m512i odd;
};

inline void store(const Output& to, std::size_t m, std::size_t panel, const Sums& sums, int bias) {
  const std::size_t at = panel * kPanelOutputs;
  if (at >= to.left) return;
  const std::size_t left = to.left - at;
  const __mmask64 mask = left < kPanelOutputs ? (__mmask64{1} << left) - 1 : ~__mmask64{0};
  const __m512i even = _mm512_sub_epi16(sums.all, _mm512_slli_epi16(sums.odd, 8));
  const __m512i low = _mm512_unpacklo_epi16(even, sums.odd);
  const __m512i high = _mm512_unpackhi_epi16(even, sums.odd);
  const __m512i words[2] = {
      _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high),
      _mm512_permutex2var_epi64(low, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), high)};
  std::int32_t* out = to.out + m * to.stride + at;
  for (std::size_t q = 0; q < 4; ++q, out += 16) {
    const __m256i part = q % 2 == 0 ? _mm512_castsi512_si256(words[q / 2])
                                    : _mm512_extracti64x4_epi64(words[q / 2], 1);
    const auto valid = static_cast<__mmask16>(mask >> 16 * q);
    __m512i sum = _mm512_sub_epi32(_mm512_cvtepu16_epi32(part), _mm512_set1_epi32(bias));
    if (!to.first) sum = _mm512_add_epi32(sum, _mm512_maskz_loadu_epi32(valid, out));
    _mm512_mask_storeu_epi32(out, valid, sum);
  }
}

// kRows rows times kPanels panels, `panel_bytes` apart.
template <std::size_t kRows, std::size_t kPanels>
__attribute__((noinline)) void product(const Activations& from, std::size_t row,
                                       const std::uint8_t* weights, std::size_t panel_bytes,
                                       std::size_t codes, const Output& to) {
  // Bytes further on, so that weights from memory arrive in time; beyond the end it is harmless.
  constexpr std::size_t kAhead = 1024;
  Sums tile[kRows * kPanels] = {};
  for (std::size_t first = 0; first < codes; first += kRun) {
    const std::size_t end = codes - first < kRun ? codes : first + kRun;
    __m512i bytes[kRows][kPanels];
#pragma GCC unroll 8
    for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 8
      for (std::size_t c = 0; c < kPanels; ++c) bytes[m][c] = _mm512_setzero_si512();
    }
    for (std::size_t g = first; g < end; ++g) {
      __m512i line[kPanels];
#pragma GCC unroll 8
      for (std::size_t c = 0; c < kPanels; ++c) {
        const std::uint8_t* at = weights + c * panel_bytes + g * kPanelBytes;
        if constexpr (kRows == 1) {
          _mm_prefetch(reinterpret_cast<const char*>(at) + kAhead, _MM_HINT_T0);
        }
        line[c] = _mm512_load_si512(at);
      }
#pragma GCC unroll 8
      for (std::size_t m = 0; m < kRows; ++m) {
        const std::uint8_t* table = kProducts.entries[from.codes[row + m][g]];
        const __m512i low = _mm512_load_si512(table);
        const __m512i high = _mm512_load_si512(table + 64);
#pragma GCC unroll 8
        for (std::size_t c = 0; c < kPanels; ++c) {
          bytes[m][c] = _mm512_add_epi8(bytes[m][c], _mm512_permutex2var_epi8(low, line[c], high));
          __asm__("" : "+v"(bytes[m][c]));  // keeps the sum in its register
        }
      }
    }
#pragma GCC unroll 8
    for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 8
      for (std::size_t c = 0; c < kPanels; ++c) {
        Sums& sums = tile[m * kPanels + c];
        sums.all = _mm512_add_epi16(sums.all, bytes[m][c]);
        sums.odd = _mm512_add_epi16(sums.odd, _mm512_srli_epi16(bytes[m][c], 8));
      }
    }
  }
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t c = 0; c < kPanels; ++c) {
      store(to, m, c, tile[m * kPanels + c], kBias * static_cast<int>(codes));
    }
  }
}

// From panel p on.
inline Output from_panel(Output to, std::size_t p) {
  const std::size_t before = p * kPanelOutputs;
  to.out += before;
  to.left -= to.left < before ? to.left : before;
  return to;
}

template <std::size_t kRows>
void rows_by_panels(const Activations& from, std::size_t row, const std::uint8_t* weights,
                    std::size_t panel_bytes, std::size_t panels, std::size_t codes,
                    const Output& to) {
  std::size_t p = 0;
  if constexpr (kRows == 1) {
    for (; p + 8 <= panels; p += 8) {
      product<1, 8>(from, row, weights + p * panel_bytes, panel_bytes, codes, from_panel(to, p));
    }
  }
  for (; p + 4 <= panels; p += 4) {
    product<kRows, 4>(from, row, weights + p * panel_bytes, panel_bytes, codes, from_panel(to, p));
  }
  for (; p + 2 <= panels; p += 2) {
    product<kRows, 2>(from, row, weights + p * panel_bytes, panel_bytes, codes, from_panel(to, p));
  }
  if (p < panels) {
    product<kRows, 1>(from, row, weights + p * panel_bytes, panel_bytes, codes, from_panel(to, p));
  }
}

// The rows of a block times some panels.
void all_rows(const Activations& from, std::size_t rows, const std::uint8_t* weights,
              std::size_t panel_bytes, std::size_t panels, std::size_t codes, Output to) {
  for (std::size_t m = 0; m < rows; m += kMaxRows, to.out += kMaxRows * to.stride) {
    switch (rows - m) {
      case 1:
        rows_by_panels<1>(from, m, weights, panel_bytes, panels, codes, to);
        break;
      case 2:
        rows_by_panels<2>(from, m, weights, panel_bytes, panels, codes, to);
        break;
      case 3:
        rows_by_panels<3>(from, m, weights, panel_bytes, panels, codes, to);
        break;
      default:
        rows_by_panels<4>(from, m, weights, panel_bytes, panels, codes, to);
    }
  }
}

void quads(const TritMatmulArgs& args) {
  const WeightPanelsView& weights = args.weights;
  const std::size_t blocks = (weights.depth + kBlockTrits - 1) / kBlockTrits;
  const std::size_t groups = (weights.depth + 3) / 4;
  const std::size_t panel_bytes = groups * kPanelBytes;
  const std::size_t chunks = blocks == 0 ? 1 : (blocks + kChunkBlocks - 1) / kChunkBlocks;
  const std::size_t chunk = (blocks + chunks - 1) / chunks;
  const std::uint8_t* panels = weights.bytes + args.first_output / kPanelOutputs * panel_bytes;
  Activations block;
  for (std::size_t row = 0; row < args.rows; row += kBlockRows) {
    const std::size_t rows = args.rows - row < kBlockRows ? args.rows - row : kBlockRows;
    for (std::size_t c = 0; c < chunks; ++c) {
      const std::size_t begin = c * chunk;
      const std::size_t end = begin + chunk < blocks ? begin + chunk : blocks;
      for (std::size_t m = 0; m < rows; ++m) {
        const std::uint64_t* planes = args.activations + (row + m) * blocks * kBlockWords;
        for (std::size_t b = begin; b < end; ++b) {
          encode(planes + b * kBlockWords, block.codes[m] + (b - begin) * kBlockCodes);
        }
      }
      const std::size_t first = begin * kBlockCodes;
      const std::size_t last = end * kBlockCodes < groups ? end * kBlockCodes : groups;
      const std::size_t codes = last > first ? last - first : 0;
      // Some panels' chunk stays in the second cache while every row of the block passes over it.
      constexpr std::size_t kTogether = 8;
      for (std::size_t n = 0; n < args.outputs; n += kTogether * kPanelOutputs) {
        const std::size_t left = args.outputs - n;
        const std::size_t all = (left + kPanelOutputs - 1) / kPanelOutputs;
        const std::size_t count = all < kTogether ? all : kTogether;
        const std::uint8_t* from = panels + n / kPanelOutputs * panel_bytes + first * kPanelBytes;
        all_rows(block, rows, from, panel_bytes, count, codes,
                 {.out = args.out + row * args.out_stride + n,
                  .stride = args.out_stride,
                  .left = left,
                  .first = c == 0});
      }
    }
  }
}

// --- five trits a byte ---------------------------------------------------------------------------
// Twenty depths, four bytes an output, become five codes of four trits: the first four trits of
// each byte, and the four fifth ones. The activations' codes stand in that order too.

constexpr std::size_t kUnitDepths = 20;
constexpr std::size_t kUnitCodes = 5;
constexpr std::size_t kUnitLines = 4;
constexpr std::size_t kUnits = 64;         // a chunk: 320 codes
constexpr std::size_t kDecodedPanels = 4;  // 80 KiB
// Rows so few that each decodes a panel for itself, in registers, and all but the first from the
// second cache: faster than to store the codes for all.
constexpr std::size_t kFewRows = 3;
constexpr std::size_t kRowUnits = 1600;  // a chunk of theirs, 8000 codes: whole panels, mostly
static_assert(kUnits <= kRowUnits && kUnits * kUnitCodes + 64 <= kChunkCodes);
static_assert((kRowUnits * kUnitCodes + kRun) * 2 * kBias <= 0xFFFF);

// By the low seven bits the code of the first four trits, by the low six the fifth trit plus one.
alignas(64) constexpr struct FiveTables {
  std::uint8_t first[128];
  std::uint8_t fifth[64];
} kFive = [] {
  FiveTables tables{};
  for (int byte = 0; byte < 128; ++byte) {
    tables.first[byte] = static_cast<std::uint8_t>(five_code::magnitude(byte) + 40);
  }
  for (int byte = 0; byte < 64; ++byte) {
    tables.fifth[byte] = static_cast<std::uint8_t>(five_code::fifth(byte) + 1);
  }
  return tables;
}();

enum class Cache { kFirst, kSecond };

// Brings the bytes of a unit to codes. Where the sign is set, a code c of four is 80 - c.
struct Decoder {
  __m512i first_low = _mm512_load_si512(kFive.first);
  __m512i first_high = _mm512_load_si512(kFive.first + 64);
  __m512i fifths = _mm512_load_si512(kFive.fifth);

  // Fetches kAhead bytes further on, so that weights from memory arrive in time; beyond the end it
  // is harmless.
  template <std::size_t kAhead, Cache kInto>
  inline __attribute__((always_inline)) void decode(const std::uint8_t* from,
                                                    __m512i (&codes)[kUnitCodes]) const {
    __m512i digits[kUnitLines];
#pragma GCC unroll 4
    for (std::size_t j = 0; j < kUnitLines; ++j, from += kPanelBytes) {
      const char* const ahead = reinterpret_cast<const char*>(from) + kAhead;
      if constexpr (kInto == Cache::kFirst) {
        _mm_prefetch(ahead, _MM_HINT_T0);
      } else {
        _mm_prefetch(ahead, _MM_HINT_T1);
      }
      const __m512i bytes = _mm512_load_si512(from);
      const __mmask64 negative = _mm512_movepi8_mask(bytes);
      digits[j] = _mm512_permutexvar_epi8(bytes, fifths);
      const __m512i first = _mm512_permutex2var_epi8(first_low, bytes, first_high);
      codes[j] = _mm512_mask_sub_epi8(first, negative, _mm512_set1_epi8(kCodes - 1), first);
    }
    codes[4] = digits[3];
#pragma GCC unroll 3
    for (std::size_t j = 0; j < 3; ++j) {
      codes[4] = _mm512_add_epi8(_mm512_add_epi8(codes[4], codes[4]),
                                 _mm512_add_epi8(codes[4], digits[2 - j]));
    }
  }
};

// Units of a panel to lines of codes, for several rows.
__attribute__((noinline)) void decode_lines(const std::uint8_t* from, std::size_t units,
                                            std::uint8_t* to) {
  const Decoder decoder;
  for (std::size_t u = 0; u < units; ++u, from += kUnitLines * kPanelBytes) {
    __m512i codes[kUnitCodes];
    decoder.decode<8192, Cache::kSecond>(from, codes);
#pragma GCC unroll 5
    for (std::size_t j = 0; j < kUnitCodes; ++j, to += kPanelBytes)
      _mm512_store_si512(to, codes[j]);
  }
}

// One row times a panel, whose codes never leave the registers.
__attribute__((noinline)) void one_row(const std::uint8_t* activations, const std::uint8_t* weights,
                                       std::size_t units, const Output& to) {
  constexpr std::size_t kRunUnits = kRun / kUnitCodes;
  const Decoder decoder;
  Sums sums{_mm512_setzero_si512(), _mm512_setzero_si512()};
  for (std::size_t first = 0; first < units; first += kRunUnits) {
    const std::size_t end = units - first < kRunUnits ? units : first + kRunUnits;
    __m512i bytes = _mm512_setzero_si512();
    for (std::size_t u = first; u < end; ++u) {
      __m512i codes[kUnitCodes];
      decoder.decode<4096, Cache::kFirst>(weights + u * kUnitLines * kPanelBytes, codes);
#pragma GCC unroll 5
      for (std::size_t j = 0; j < kUnitCodes; ++j) {
        const std::uint8_t* table = kProducts.entries[activations[u * kUnitCodes + j]];
        bytes = _mm512_add_epi8(bytes, _mm512_permutex2var_epi8(_mm512_load_si512(table), codes[j],
                                                                _mm512_load_si512(table + 64)));
      }
    }
    sums.all = _mm512_add_epi16(sums.all, bytes);
    sums.odd = _mm512_add_epi16(sums.odd, _mm512_srli_epi16(bytes, 8));
  }
  store(to, 0, 0, sums, kBias * static_cast<int>(units * kUnitCodes));
}

// Twenty bits of a plane from trit k on, as five nibbles in five bytes; zeros beyond the row.
inline std::uint64_t nibbles(const std::uint64_t* plane, std::size_t row_words, std::size_t k) {
  const auto word_of = [](std::size_t trit) {
    return trit / kBlockTrits * kBlockWords + trit % kBlockTrits / 64;
  };
  std::uint64_t bits = plane[word_of(k)] >> (k % 64);
  const std::size_t next = word_of(k + kUnitDepths);
  if (k % 64 > 64 - kUnitDepths && next < row_words) bits |= plane[next] << (64 - k % 64);
  const std::uint64_t order = _pext_u64(bits, 0x7BDEF) | _pext_u64(bits, 0x84210) << 16;
  return _pdep_u64(order, 0x0F0F0F0F0F);
}

// The codes of `units` units from depth `first` on.
inline void encode_units(const std::uint64_t* row, std::size_t row_words, std::size_t first,
                         std::size_t units, std::uint8_t* codes) {
  // Eight bytes are stored where five are wanted.
  alignas(64) std::uint8_t nonzero[kRowUnits * kUnitCodes + 64];
  alignas(64) std::uint8_t negative[kRowUnits * kUnitCodes + 64];
  for (std::size_t u = 0; u < units; ++u) {
    const std::size_t k = first + u * kUnitDepths;
    const std::uint64_t n = nibbles(row, row_words, k);
    const std::uint64_t s = nibbles(row + kPlaneWords, row_words - kPlaneWords, k);
    __builtin_memcpy(nonzero + u * kUnitCodes, &n, sizeof n);
    __builtin_memcpy(negative + u * kUnitCodes, &s, sizeof s);
  }
  for (std::size_t i = 0; i < units * kUnitCodes; i += 64) {
    _mm512_store_si512(codes + i,
                       codes_of(_mm512_load_si512(nonzero + i), _mm512_load_si512(negative + i)));
  }
}

void fives(const TritMatmulArgs& args) {
  const WeightPanelsView& weights = args.weights;
  const std::size_t units = (weights.depth + kUnitDepths - 1) / kUnitDepths;
  const std::size_t panel_bytes = units * kUnitLines * kPanelBytes;
  const std::size_t row_words = (weights.depth + kBlockTrits - 1) / kBlockTrits * kBlockWords;
  const std::uint8_t* panels = weights.bytes + args.first_output / kPanelOutputs * panel_bytes;
  constexpr std::size_t kDecodedBytes = kUnits * kUnitCodes * kPanelBytes;
  alignas(64) std::uint8_t decoded[kDecodedPanels * kDecodedBytes];
  Activations block;
  alignas(64) std::uint8_t few[kFewRows][kRowUnits * kUnitCodes + 64];
  for (std::size_t row = 0; row < args.rows; row += kBlockRows) {
    const std::size_t rows = args.rows - row < kBlockRows ? args.rows - row : kBlockRows;
    const std::size_t most = rows <= kFewRows ? kRowUnits : kUnits;
    for (std::size_t first = 0; first == 0 || first < units; first += most) {
      const std::size_t count = units - first < most ? units - first : most;
      for (std::size_t m = 0; m < rows; ++m) {
        encode_units(args.activations + (row + m) * row_words, row_words, first * kUnitDepths,
                     count, rows <= kFewRows ? few[m] : block.codes[m]);
      }
      for (std::size_t n = 0; n < args.outputs; n += kDecodedPanels * kPanelOutputs) {
        const std::size_t left = args.outputs - n;
        const std::size_t all = (left + kPanelOutputs - 1) / kPanelOutputs;
        const std::size_t held = all < kDecodedPanels ? all : kDecodedPanels;
        const Output to{.out = args.out + row * args.out_stride + n,
                        .stride = args.out_stride,
                        .left = left,
                        .first = first == 0};
        const std::uint8_t* from =
            panels + n / kPanelOutputs * panel_bytes + first * kUnitLines * kPanelBytes;
        if (rows <= kFewRows) {
          for (std::size_t c = 0; c < held; ++c, from += panel_bytes) {
            Output out = from_panel(to, c);
            for (std::size_t m = 0; m < rows; ++m, out.out += out.stride) {
              one_row(few[m], from, count, out);
            }
          }
          continue;
        }
        for (std::size_t c = 0; c < held; ++c, from += panel_bytes) {
          decode_lines(from, count, decoded + c * kDecodedBytes);
        }
        all_rows(block, rows, decoded, kDecodedBytes, held, count * kUnitCodes, to);
      }
    }
  }
}

}  // namespace

void trit_matmul(const TritMatmulArgs& args) noexcept {
  if (args.weights.layout == WeightLayout::kTritQuads) return quads(args);
  if (args.weights.layout == WeightLayout::kTritFives) return fives(args);
  portable::trit_matmul(args);
}

}  // namespace tfmbs::kernels::avx512
