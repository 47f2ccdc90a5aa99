// Products from tables of 16 bytes: two activations of a row pick a table, in which a nibble of
// weights looks up the sum of its two products. One byte shuffle does that for 32 outputs.
#include <immintrin.h>

#include "avx2_partial.hpp"
#include "operations.hpp"
#include "panels.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

constexpr int kBias = 2;  // makes a sum of two products unsigned, 0...4
// Sums of bytes: 31 * 2 * 4 = 248. They are added up as 16-bit words before a byte can overflow.
constexpr std::size_t kRun = 31;
constexpr std::size_t kMaxRows = 4;     // whose sums stay in registers
constexpr std::size_t kBlockRows = 32;  // that share a block of activations
constexpr std::size_t kBlockCodes = kBlockTrits / 4;
constexpr std::size_t kChunkBlocks = 16;
constexpr std::size_t kChunkCodes = kChunkBlocks * kBlockCodes;
constexpr std::size_t kHalves = kPanelBytes / 32;
// A word collects the sums of a chunk.
static_assert((kChunkCodes + kRun) * 4 * kBias <= 0xFFFF);

// entries[a][w]: the sum of the products of two pairs of trits, biased; twice, for both lanes.
alignas(32) constexpr struct Products {
  std::uint8_t entries[16][32];
} kProducts = [] {
  Products products{};
  for (int a = 0; a < 9; ++a) {
    for (int w = 0; w < 9; ++w) {
      const int sum = kBias + (a % 3 - 1) * (w % 3 - 1) + (a / 3 - 1) * (w / 3 - 1);
      products.entries[a][w] = products.entries[a][w + 16] = static_cast<std::uint8_t>(sum);
    }
  }
  return products;
}();

inline __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

// The codes of half a block, 256 trits: as weights, two pairs a byte. A trit is its bit of
// `nonzero` minus twice that of `negative`, and so are the codes, above the code of zeros.
inline void encode(const std::uint64_t* words, std::uint8_t* codes) {
  const __m256i sums =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0x00, 0x01, 0x03, 0x04, 0x10, 0x11, 0x13, 0x14,
                                                0x30, 0x31, 0x33, 0x34, 0x40, 0x41, 0x43, 0x44));
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
  const __m256i low = _mm256_unpacklo_epi8(halves[0], halves[1]);
  const __m256i high = _mm256_unpackhi_epi8(halves[0], halves[1]);
  auto* to = reinterpret_cast<__m256i*>(codes);
  _mm256_store_si256(to, _mm256_permute2x128_si256(low, high, 0x20));
  _mm256_store_si256(to + 1, _mm256_permute2x128_si256(low, high, 0x31));
}

using Activations = CodeBlock<kBlockRows, kChunkCodes>;

// The sums of one row and half a panel. The words of `all` hold s[2i] + 256 * s[2i + 1], modulo
// 2^16, and those of `odd` s[2i + 1].
struct Sums {
  __m256i all;
  __m256i odd;
};

inline void store(const Output& to, std::size_t m, std::size_t half, const Sums& sums, int bias) {
  const std::size_t at = half * 32;
  if (at >= to.left) return;
  const __m256i even = _mm256_sub_epi16(sums.all, _mm256_slli_epi16(sums.odd, 8));
  const __m256i low = _mm256_unpacklo_epi16(even, sums.odd);   // 0...7, 16...23
  const __m256i high = _mm256_unpackhi_epi16(even, sums.odd);  // 8...15, 24...31
  const __m128i parts[4] = {_mm256_castsi256_si128(low), _mm256_castsi256_si128(high),
                            _mm256_extracti128_si256(low, 1), _mm256_extracti128_si256(high, 1)};
  std::int32_t* out = to.out + m * to.stride + at;
  for (std::size_t q = 0; q < 4 && at + 8 * q < to.left; ++q, out += 8) {
    put_sums(out, _mm256_sub_epi32(_mm256_cvtepu16_epi32(parts[q]), _mm256_set1_epi32(bias)),
             to.left - at - 8 * q, to.first);
  }
}

// kRows rows times one panel.
template <std::size_t kRows>
__attribute__((noinline)) void product(const Activations& from, std::size_t row,
                                       const std::uint8_t* weights, std::size_t codes,
                                       const Output& to) {
  // Bytes further on, so that weights from memory arrive in time; beyond the end it is harmless.
  constexpr std::size_t kAhead = 4096;
  const __m256i nibble = _mm256_set1_epi8(15);
  Sums tile[kRows][kHalves] = {};
  for (std::size_t first = 0; first < codes; first += kRun) {
    const std::size_t end = codes - first < kRun ? codes : first + kRun;
    __m256i bytes[kRows][kHalves];
#pragma GCC unroll 4
    for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
      for (std::size_t h = 0; h < kHalves; ++h) bytes[m][h] = _mm256_setzero_si256();
    }
    for (std::size_t g = first; g < end; ++g) {
      const std::uint8_t* at = weights + g * kPanelBytes;
      if constexpr (kRows == 1) {
        _mm_prefetch(reinterpret_cast<const char*>(at) + kAhead, _MM_HINT_T0);
      }
      __m256i low[kHalves];
      __m256i high[kHalves];
#pragma GCC unroll 2
      for (std::size_t h = 0; h < kHalves; ++h) {
        const __m256i line = load(at + 32 * h);
        low[h] = _mm256_and_si256(line, nibble);
        high[h] = _mm256_and_si256(_mm256_srli_epi16(line, 4), nibble);
      }
#pragma GCC unroll 4
      for (std::size_t m = 0; m < kRows; ++m) {
        const std::uint8_t code = from.codes[row + m][g];
        const __m256i low_table = load(kProducts.entries[code & 15]);
        const __m256i high_table = load(kProducts.entries[code >> 4]);
#pragma GCC unroll 2
        for (std::size_t h = 0; h < kHalves; ++h) {
          bytes[m][h] = _mm256_add_epi8(bytes[m][h], _mm256_shuffle_epi8(low_table, low[h]));
          bytes[m][h] = _mm256_add_epi8(bytes[m][h], _mm256_shuffle_epi8(high_table, high[h]));
          __asm__("" : "+x"(bytes[m][h]));  // keeps the sum in its register
        }
      }
    }
#pragma GCC unroll 4
    for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
      for (std::size_t h = 0; h < kHalves; ++h) {
        Sums& sums = tile[m][h];
        sums.all = _mm256_add_epi16(sums.all, bytes[m][h]);
        sums.odd = _mm256_add_epi16(sums.odd, _mm256_srli_epi16(bytes[m][h], 8));
      }
    }
  }
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t h = 0; h < kHalves; ++h) {
      store(to, m, h, tile[m][h], 2 * kBias * static_cast<int>(codes));
    }
  }
}

void pairs(const TritMatmulArgs& args) {
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
          std::uint8_t* codes = block.codes[m] + (b - begin) * kBlockCodes;
          encode(planes + b * kBlockWords, codes);
          encode(planes + b * kBlockWords + kPlaneWords / 2, codes + kBlockCodes / 2);
        }
      }
      const std::size_t first = begin * kBlockCodes;
      const std::size_t last = end * kBlockCodes < groups ? end * kBlockCodes : groups;
      const std::size_t codes = last > first ? last - first : 0;
      for (std::size_t n = 0; n < args.outputs; n += kPanelOutputs) {
        const std::uint8_t* from = panels + n / kPanelOutputs * panel_bytes + first * kPanelBytes;
        for (std::size_t m = 0; m < rows; m += kMaxRows) {
          const Output to{.out = args.out + (row + m) * args.out_stride + n,
                          .stride = args.out_stride,
                          .left = args.outputs - n,
                          .first = c == 0};
          switch (rows - m) {
            case 1:
              product<1>(block, m, from, codes, to);
              break;
            case 2:
              product<2>(block, m, from, codes, to);
              break;
            case 3:
              product<3>(block, m, from, codes, to);
              break;
            default:
              product<4>(block, m, from, codes, to);
          }
        }
      }
    }
  }
}

}  // namespace

void trit_matmul(const TritMatmulArgs& args) noexcept {
  if (args.weights.layout == WeightLayout::kTritPairs) return pairs(args);
  portable::trit_matmul(args);
}

}  // namespace tfmbs::kernels::avx2
