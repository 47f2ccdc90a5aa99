// Tables look up the products of pairs of trits (avx2_pairs.hpp), as in trit_matmul/avx2.cpp; sums
// of a group become fp32 while they are few. A byte does not hold what 128 trits may add up to, 0
// to 256 with the bias, so two parts of them are collected in bytes of their own; one
// multiplication by ones adds these up in words of 16 bits. A word s with 0x4B00 above it is the
// float 2^23 + s, which takes an interleaving instead of a conversion.
#include "composed_groups.hpp"
#include "grouped_avx2.hpp"
#include "operations.hpp"
#include "trit_matmul/avx2_pairs.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

// Lines of a pass, 128 depths, whose sums are collected in bytes: of one row, the lookups of low
// and of high nibbles apart; of several, those of the first kFirstLines lines and of the others.
constexpr std::size_t kPassLines = 32;
constexpr std::size_t kFirstLines = 18;
static_assert(kPassLines * 2 * kBias <= 255);
static_assert(kFirstLines % kStepLines == 0 && kFirstLines <= kRunLines &&
              kPassLines - kFirstLines <= kRunLines);
constexpr std::size_t kMostGroupLines = kMostScaleGroup / 4;
static_assert(2 * kMostGroupLines * 2 * kBias <= 0xFFFF);
// Every chunk begins with a group.
static_assert(kBlockTrits % kMostScaleGroup == 0);

constexpr std::size_t kHalfOutputs = 32;
constexpr std::size_t kQuarters = kHalfOutputs / kFloats;

// The fp32 sums of one row and half a panel, in the order of outputs.
struct Tile {
  __m256 quarters[kQuarters];
};

inline Tile load_tile(const ScaledOutput& to, std::size_t m, std::size_t half) {
  Tile tile;
  for (std::size_t q = 0; q < kQuarters; ++q) {
    tile.quarters[q] = load_sums(to, m, half * kHalfOutputs + q * kFloats);
  }
  return tile;
}
inline void store_tile(const ScaledOutput& to, std::size_t m, std::size_t half, const Tile& tile) {
  for (std::size_t q = 0; q < kQuarters; ++q) {
    store_sums(to, m, half * kHalfOutputs + q * kFloats, tile.quarters[q]);
  }
}

// Sums of half a panel in words: outputs 0...7 and 16...23, and the others.
struct Words {
  __m256i low;
  __m256i high;
};
inline __attribute__((always_inline)) Words add_parts(__m256i first, __m256i second) {
  const __m256i ones = _mm256_set1_epi8(1);
  return {_mm256_maddubs_epi16(_mm256_unpacklo_epi8(first, second), ones),
          _mm256_maddubs_epi16(_mm256_unpackhi_epi8(first, second), ones)};
}
inline __attribute__((always_inline)) void add_words(Words& sums, const Words& words) {
  sums.low = _mm256_add_epi16(sums.low, words.low);
  sums.high = _mm256_add_epi16(sums.high, words.high);
}

// What a group's words have too much, as they become floats.
inline __m256 excess(std::size_t lines) {
  return _mm256_set1_ps(static_cast<float>(0x800000 + 2 * kBias * static_cast<int>(lines)));
}

// The end of a group. An interleaving takes the halves of its operands' lanes, so these are put in
// the order in which floats come out as outputs stand.
inline __attribute__((always_inline)) void add_group(Tile& sums, const Words& words, __m256 excess,
                                                     const float* scales) {
  const __m256i upper = _mm256_set1_epi16(0x4B00);
  const __m256i low = _mm256_permute4x64_epi64(words.low, 0xD8);
  const __m256i high = _mm256_permute4x64_epi64(words.high, 0xD8);
  const __m256i floats[kQuarters] = {
      _mm256_unpacklo_epi16(low, upper), _mm256_unpacklo_epi16(high, upper),
      _mm256_unpackhi_epi16(low, upper), _mm256_unpackhi_epi16(high, upper)};
#pragma GCC unroll 4
  for (std::size_t q = 0; q < kQuarters; ++q) {
    const __m256 sum = _mm256_sub_ps(_mm256_castsi256_ps(floats[q]), excess);
    const __m256 scaled = _mm256_mul_ps(sum, _mm256_loadu_ps(scales + q * kFloats));
    sums.quarters[q] = _mm256_add_ps(sums.quarters[q], scaled);
  }
}

// Some rows times the lines of a panel's chunk.
struct Task {
  const Activations* from;
  std::size_t row;
  std::size_t rows;
  const std::uint8_t* weights;
  std::size_t lines;
  std::size_t group_lines;  // of each group but the last
  const float* scales;      // kGroupScales a group
  ScaledOutput to;
};

// A line of the first kCount halves of a panel, of one row: sums of its low and high nibbles.
template <std::size_t kCount>
inline __attribute__((always_inline)) void row_line(const std::uint8_t* offsets,
                                                    const std::uint8_t* weights,
                                                    __m256i (&low)[kCount],
                                                    __m256i (&high)[kCount]) {
  // Bytes further on, so that weights from memory arrive in time; beyond the end it is harmless.
  constexpr std::size_t kAhead = 4096;
  const __m256i nibble = _mm256_set1_epi8(15);
  _mm_prefetch(reinterpret_cast<const char*>(weights) + kAhead, _MM_HINT_T0);
  const __m256i low_table = table(kRowTables.entries[0], offsets[0]);
  const __m256i high_table = table(kRowTables.entries[0], offsets[1]);
#pragma GCC unroll 2
  for (std::size_t h = 0; h < kCount; ++h) {
    const __m256i line = load(weights + 32 * h);
    const __m256i upper = _mm256_and_si256(_mm256_srli_epi16(line, 4), nibble);
    add_bytes(low[h], _mm256_shuffle_epi8(low_table, _mm256_and_si256(line, nibble)));
    add_bytes(high[h], _mm256_shuffle_epi8(high_table, upper));
  }
}

// One row times the first kCount halves of a panel.
template <std::size_t kCount>
__attribute__((noinline)) void one_row(const Task& task) {
  const std::uint8_t* offsets = task.from->offsets[0];
  const float* scales = task.scales;
  Words words[kCount] = {};  // of a group
  Tile sums[kCount];
  for (std::size_t h = 0; h < kCount; ++h) sums[h] = load_tile(task.to, 0, h);
  for (std::size_t first = 0; first < task.lines; first += task.group_lines) {
    const std::size_t left = task.lines - first;
    const std::size_t end = first + (left < task.group_lines ? left : task.group_lines);
    for (std::size_t begin = first; begin < end; begin += kPassLines) {
      const std::size_t pass_end = end - begin < kPassLines ? end : begin + kPassLines;
      __m256i low[kCount];
      __m256i high[kCount];
#pragma GCC unroll 2
      for (std::size_t h = 0; h < kCount; ++h) low[h] = high[h] = _mm256_setzero_si256();
      for (std::size_t g = begin; g < pass_end; ++g) {
        row_line(offsets + 2 * g, task.weights + g * kPanelBytes, low, high);
      }
#pragma GCC unroll 2
      for (std::size_t h = 0; h < kCount; ++h) {
        const Words pass = add_parts(low[h], high[h]);
        if (begin == first) {
          words[h] = pass;
        } else {
          add_words(words[h], pass);
        }
      }
    }
    const __m256 too_much = excess(end - first);
#pragma GCC unroll 2
    for (std::size_t h = 0; h < kCount; ++h) {
      add_group(sums[h], words[h], too_much, scales + h * kHalfOutputs);
    }
    scales += kGroupScales;
  }
  for (std::size_t h = 0; h < kCount; ++h) store_tile(task.to, 0, h, sums[h]);
}

// A line of half a panel.
template <std::size_t kPairs>
inline __attribute__((always_inline)) void line_step(const std::uint8_t* const* offsets,
                                                     std::size_t at, const std::uint8_t* weights,
                                                     PairSums (&sums)[kPairs]) {
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i line = load(weights);
  const __m256i nibbles[2] = {_mm256_and_si256(line, nibble),
                              _mm256_and_si256(_mm256_srli_epi16(line, 4), nibble)};
#pragma GCC unroll 4
  for (std::size_t p = 0; p < kPairs; ++p) look_up(offsets[p] + at, nibbles, sums[p]);
}

// Lines [begin, end), at most kRunLines, of half a panel: bytes[m] are the sums of row m.
template <std::size_t kPairs>
inline __attribute__((always_inline)) void run(const std::uint8_t* const* offsets,
                                               const std::uint8_t* weights, std::size_t begin,
                                               std::size_t end, __m256i (&bytes)[2 * kPairs]) {
  PairSums sums[kPairs];
#pragma GCC unroll 4
  for (std::size_t p = 0; p < kPairs; ++p) {
    sums[p] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  }
  std::size_t g = begin;
  for (; g + kStepLines <= end; g += kStepLines) {
    step(offsets, 2 * g, weights + g * kPanelBytes, sums);
  }
  for (; g < end; ++g) line_step(offsets, 2 * g, weights + g * kPanelBytes, sums);
#pragma GCC unroll 4
  for (std::size_t p = 0; p < kPairs; ++p) {
    const __m256i a = sums[p].lower;
    const __m256i a_of_odd =  // times 16
        _mm256_and_si256(_mm256_srli_epi16(a, 4), _mm256_set1_epi16(0x0FF0));
    bytes[2 * p] = a;
    bytes[2 * p + 1] = _mm256_sub_epi16(sums[p].upper, a_of_odd);
  }
}

// kPairs pairs of rows times half a panel.
template <std::size_t kPairs>
__attribute__((noinline)) void row_pairs(const Task& task, std::size_t half) {
  constexpr std::size_t kRows = 2 * kPairs;
  const std::uint8_t* offsets[kPairs];
  for (std::size_t p = 0; p < kPairs; ++p) offsets[p] = task.from->offsets[task.row / 2 + p];
  const std::uint8_t* weights = task.weights + half * kHalfOutputs;
  const float* scales = task.scales + half * kHalfOutputs;
  Words words[kRows] = {};  // of a group
  Tile sums[kRows] = {};
  for (std::size_t m = 0; m < task.rows; ++m) sums[m] = load_tile(task.to, m, half);
  for (std::size_t first = 0; first < task.lines; first += task.group_lines) {
    const std::size_t left = task.lines - first;
    const std::size_t end = first + (left < task.group_lines ? left : task.group_lines);
    for (std::size_t begin = first; begin < end; begin += kPassLines) {
      const std::size_t pass = end - begin < kPassLines ? end - begin : kPassLines;
      const std::size_t cut = begin + (pass <= kRunLines ? pass : kFirstLines);
      __m256i parts[2][kRows];
      run<kPairs>(offsets, weights, begin, cut, parts[0]);
      run<kPairs>(offsets, weights, cut, begin + pass, parts[1]);
      for (std::size_t m = 0; m < kRows; ++m) {
        const Words both = add_parts(parts[0][m], parts[1][m]);
        if (begin == first) {
          words[m] = both;
        } else {
          add_words(words[m], both);
        }
      }
    }
    const __m256 too_much = excess(end - first);
    for (std::size_t m = 0; m < kRows; ++m) add_group(sums[m], words[m], too_much, scales);
    scales += kGroupScales;
  }
  for (std::size_t m = 0; m < task.rows; ++m) store_tile(task.to, m, half, sums[m]);
}

void panel_product(const Task& task) {
  for (std::size_t h = 0; h < kHalves && h * kHalfOutputs < task.to.left; ++h) {
    switch ((task.rows + 1) / 2) {
      case 1:
        row_pairs<1>(task, h);
        break;
      case 2:
        row_pairs<2>(task, h);
        break;
      case 3:
        row_pairs<3>(task, h);
        break;
      default:
        row_pairs<4>(task, h);
    }
  }
}

void pairs(const GroupedTritMatmulArgs& args) {
  const WeightPanelsView& weights = args.weights;
  const std::size_t blocks = (weights.depth + kBlockTrits - 1) / kBlockTrits;
  const std::size_t all_lines = (weights.depth + 3) / 4;
  const std::size_t panel_bytes = all_lines * kPanelBytes;
  const std::size_t chunks = blocks == 0 ? 1 : (blocks + kChunkBlocks - 1) / kChunkBlocks;
  const std::size_t chunk = (blocks + chunks - 1) / chunks;
  Activations block;
  for (std::size_t row = 0; row < args.rows; row += kBlockRows) {
    const std::size_t rows = args.rows - row < kBlockRows ? args.rows - row : kBlockRows;
    for (std::size_t c = 0; c < chunks; ++c) {
      const std::size_t begin = c * chunk;
      const std::size_t end = begin + chunk < blocks ? begin + chunk : blocks;
      const std::size_t first = begin * kBlockCodes;
      const std::size_t last = end * kBlockCodes < all_lines ? end * kBlockCodes : all_lines;
      const std::size_t lines = last > first ? last - first : 0;
      for (std::size_t m = 0; m < rows; m += 2) {
        const std::uint64_t* planes = args.activations + ((row + m) * blocks + begin) * kBlockWords;
        stage(planes, m + 1 < rows ? planes + blocks * kBlockWords : nullptr, lines,
              block.offsets[m / 2]);
      }
      for (std::size_t n = 0; n < args.outputs; n += kPanelOutputs) {
        const std::size_t p = (args.first_output + n) / kPanelOutputs;
        for (std::size_t m = 0; m < rows; m += 2 * kMostPairs) {
          const std::size_t left = rows - m;
          const Task task{
              .from = &block,
              .row = m,
              .rows = left < 2 * kMostPairs ? left : 2 * kMostPairs,
              .weights = weights.bytes + p * panel_bytes + first * kPanelBytes,
              .lines = lines,
              .group_lines = args.scales.group / 4,
              .scales = scales_of(args.scales, p, begin * kBlockTrits / args.scales.group),
              .to = {.out = static_cast<float*>(args.out) + (row + m) * args.out_stride + n,
                     .stride = args.out_stride,
                     .left = args.outputs - n,
                     .first = c == 0}};
          if (rows == 1 && task.to.left <= kHalfOutputs) {
            one_row<1>(task);
          } else if (rows == 1) {
            one_row<2>(task);
          } else {
            panel_product(task);
          }
        }
      }
    }
  }
}

}  // namespace

void grouped_trit_matmul(const GroupedTritMatmulArgs& args) noexcept {
  if (args.wide || args.weights.layout != WeightLayout::kTritPairs) {
    return composed::grouped_trit_matmul(args, trit_matmul);
  }
  pairs(args);
}

}  // namespace tfmbs::kernels::avx2
