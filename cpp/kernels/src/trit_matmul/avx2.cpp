// Tables look up the products of pairs of trits (avx2_pairs.hpp); their sums are collected in
// nibbles, in bytes, and in words of 16 bits, a chunk of depths.
#include "avx2_partial.hpp"
#include "operations.hpp"
#include "trit_matmul/avx2_pairs.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

// A word collects the sums of a chunk.
static_assert(2 * kChunkLines * 2 * kBias <= 0xFFFF);

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

inline void widen(Sums& sums, __m256i bytes) {
  sums.all = _mm256_add_epi16(sums.all, bytes);
  sums.odd = _mm256_add_epi16(sums.odd, _mm256_srli_epi16(bytes, 8));
}

// One row times the first kCount halves of a panel.
template <std::size_t kCount>
__attribute__((noinline)) void one_row(const std::uint8_t* offsets, const std::uint8_t* weights,
                                       std::size_t lines, const Output& to) {
  // Bytes further on, so that weights from memory arrive in time; beyond the end it is harmless.
  constexpr std::size_t kAhead = 4096;
  const __m256i nibble = _mm256_set1_epi8(15);
  const std::uint8_t* tables = kRowTables.entries[0];
  Sums tile[kCount] = {};
  for (std::size_t first = 0; first < lines; first += kRunLines) {
    const std::size_t end = lines - first < kRunLines ? lines : first + kRunLines;
    __m256i bytes[kCount];
#pragma GCC unroll 2
    for (std::size_t h = 0; h < kCount; ++h) bytes[h] = _mm256_setzero_si256();
    for (std::size_t g = first; g < end; ++g) {
      const std::uint8_t* at = weights + g * kPanelBytes;
      _mm_prefetch(reinterpret_cast<const char*>(at) + kAhead, _MM_HINT_T0);
      const __m256i low_table = table(tables, offsets[2 * g]);
      const __m256i high_table = table(tables, offsets[2 * g + 1]);
#pragma GCC unroll 2
      for (std::size_t h = 0; h < kCount; ++h) {
        const __m256i line = load(at + 32 * h);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(line, 4), nibble);
        add_bytes(bytes[h], _mm256_shuffle_epi8(low_table, _mm256_and_si256(line, nibble)));
        add_bytes(bytes[h], _mm256_shuffle_epi8(high_table, high));
      }
    }
#pragma GCC unroll 2
    for (std::size_t h = 0; h < kCount; ++h) widen(tile[h], bytes[h]);
  }
  for (std::size_t h = 0; h < kCount; ++h) {
    store(to, 0, h, tile[h], 2 * kBias * static_cast<int>(lines));
  }
}

// kPairs pairs of rows times half a panel.
template <std::size_t kPairs>
__attribute__((noinline)) void row_pairs(const Activations& from, std::size_t row, std::size_t rows,
                                         const std::uint8_t* weights, std::size_t lines,
                                         std::size_t half, const Output& to) {
  const std::uint8_t* offsets[kPairs];
  for (std::size_t p = 0; p < kPairs; ++p) offsets[p] = from.offsets[row / 2 + p];
  Sums tile[kPairs][2] = {};
  for (std::size_t first = 0; first < lines; first += kRunLines) {
    const std::size_t end = lines - first < kRunLines ? lines : first + kRunLines;
    PairSums sums[kPairs];
#pragma GCC unroll 4
    for (std::size_t p = 0; p < kPairs; ++p) {
      sums[p] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    }
    std::size_t g = first;
    for (; g + kStepLines <= end; g += kStepLines) {
      step(offsets, 2 * g, weights + g * kPanelBytes, sums);
    }
    if (g < end) {  // offsets say that the lines which are missing have no activations
      alignas(32) std::uint8_t last[kStepLines][kPanelBytes] = {};
      __builtin_memcpy(last, weights + g * kPanelBytes, (end - g - 1) * kPanelBytes + 32);
      step(offsets, 2 * g, last[0], sums);
    }
#pragma GCC unroll 4
    for (std::size_t p = 0; p < kPairs; ++p) {
      const __m256i a = sums[p].lower;
      const __m256i a_of_odd =  // times 16
          _mm256_and_si256(_mm256_srli_epi16(a, 4), _mm256_set1_epi16(0x0FF0));
      widen(tile[p][0], a);
      widen(tile[p][1], _mm256_sub_epi16(sums[p].upper, a_of_odd));
    }
  }
  for (std::size_t m = 0; m < rows; ++m) {
    store(to, m, half, tile[m / 2][m % 2], 2 * kBias * static_cast<int>(lines));
  }
}

void panel_product(const Activations& from, std::size_t row, std::size_t rows,
                   const std::uint8_t* weights, std::size_t lines, const Output& to) {
  for (std::size_t h = 0; h < kHalves && 32 * h < to.left; ++h) {
    const std::uint8_t* half = weights + 32 * h;
    switch ((rows + 1) / 2) {
      case 1:
        row_pairs<1>(from, row, rows, half, lines, h, to);
        break;
      case 2:
        row_pairs<2>(from, row, rows, half, lines, h, to);
        break;
      case 3:
        row_pairs<3>(from, row, rows, half, lines, h, to);
        break;
      default:
        row_pairs<4>(from, row, rows, half, lines, h, to);
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
      const std::size_t first = begin * kBlockCodes;
      const std::size_t last = end * kBlockCodes < groups ? end * kBlockCodes : groups;
      const std::size_t lines = last > first ? last - first : 0;
      for (std::size_t m = 0; m < rows; m += 2) {
        const std::uint64_t* planes = args.activations + ((row + m) * blocks + begin) * kBlockWords;
        std::uint8_t* offsets = block.offsets[m / 2];
        stage(planes, m + 1 < rows ? planes + blocks * kBlockWords : nullptr, lines, offsets);
        for (std::size_t i = 0; i < 2 * (kStepLines - 1); ++i) offsets[2 * lines + i] = kZeroTable;
      }
      for (std::size_t n = 0; n < args.outputs; n += kPanelOutputs) {
        const std::uint8_t* from = panels + n / kPanelOutputs * panel_bytes + first * kPanelBytes;
        for (std::size_t m = 0; m < rows; m += 2 * kMostPairs) {
          const Output to{.out = args.out + (row + m) * args.out_stride + n,
                          .stride = args.out_stride,
                          .left = args.outputs - n,
                          .first = c == 0};
          if (rows == 1 && to.left <= 32) {
            one_row<1>(block.offsets[0], from, lines, to);
          } else if (rows == 1) {
            one_row<2>(block.offsets[0], from, lines, to);
          } else {
            const std::size_t left = rows - m;
            panel_product(block, m, left < 2 * kMostPairs ? left : 2 * kMostPairs, from, lines, to);
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