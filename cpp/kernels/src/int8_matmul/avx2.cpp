// vpmaddubsw multiplies unsigned by signed bytes and adds two products: a weight goes in as its
// code t + 1 in 0, 1, 2, and the row's sum of activations is subtracted in the end. Sums are kept
// in 16 bits as long as they fit, then in 32, modulo 2^32; the result fits.
#include <immintrin.h>

#include "avx2_partial.hpp"
#include "operations.hpp"
#include "panels.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

constexpr std::size_t kLineOutputs = 16;
constexpr std::size_t kGroup = 16;      // depths
constexpr std::size_t kMaxRows = 4;     // whose sums stay in registers
constexpr std::size_t kBlockRows = 64;  // that share a block of activations
constexpr std::size_t kBlockBytes = std::size_t{1} << 16;
constexpr std::size_t kHalves = 2;  // registers a line
// Groups whose sums fit 16 bits: a group adds at most 4 pairs of 2 * 2 * 127 = 508. A single row
// has two sums, of two pairs each, one of them scaled by 4.
constexpr std::size_t kRun = 16;
constexpr std::size_t kScaledRun = 8;
constexpr std::size_t kRowRun = 32;
static_assert(kRun * 4 * 508 <= 0x7FFF && kScaledRun * 2 * 4 * 508 <= 0x7FFF &&
              kRowRun * 2 * 508 <= 0x7FFF);
// A single row's scaled sums keep to 32 bits.
static_assert(kBlockBytes / kGroup * (std::size_t{4} * 4 * 508) <= 0x7FFFFFFF);

using Activations = ValueBlock<kBlockRows, kBlockBytes>;

inline __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
inline __m256i broadcast(const std::int8_t* four) {
  std::int32_t value = 0;
  __builtin_memcpy(&value, four, sizeof value);
  return _mm256_set1_epi32(value);
}

// Sixteen values of a row that has `left` more, then zeros. Not read past the row's end, for there
// may be none behind it.
inline __m128i load_values(const std::int8_t* from, std::size_t depth, std::size_t left) {
  if (left >= kGroup) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  if (left == 0) return _mm_setzero_si128();
  if (depth >= kGroup) {  // the row's last sixteen, those that are taken already shifted out
    alignas(32) static constexpr std::int8_t kFrom[32] = {
        0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    const __m128i last = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + left - kGroup));
    return _mm_shuffle_epi8(
        last, _mm_loadu_si128(reinterpret_cast<const __m128i*>(kFrom + kGroup - left)));
  }
  std::int8_t few[kGroup] = {};
  __builtin_memcpy(few, from, left);
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(few));
}

inline void stage(const Int8MatmulArgs& args, std::size_t row, std::size_t rows, std::size_t first,
                  std::size_t depths, Activations& to) {
  const __m128i flip = _mm_set1_epi8(-128);  // to v + 128, which vpsadbw can add up
  for (std::size_t m = 0; m < rows; ++m) {
    const std::int8_t* from = args.activations + (row + m) * args.row_stride + first;
    std::int8_t* values = to.values + m * to.stride;
    __m128i sum = _mm_setzero_si128();
    for (std::size_t k = 0; k < to.stride; k += kGroup) {
      const std::size_t left = k < depths ? depths - k : 0;
      const __m128i bytes = load_values(from + k, depths, left);
      _mm_store_si128(reinterpret_cast<__m128i*>(values + k), bytes);
      sum = _mm_add_epi64(sum, _mm_sad_epu8(_mm_xor_si128(bytes, flip), _mm_setzero_si128()));
    }
    const std::int64_t total = _mm_cvtsi128_si64(sum) + _mm_extract_epi64(sum, 1);
    to.sums[m] = static_cast<std::int32_t>(total - static_cast<std::int64_t>(128 * to.stride));
  }
}

inline void store(const Output& to, std::size_t m, std::size_t half, __m256i sum,
                  std::int32_t offset) {
  const std::size_t at = half * 8;
  if (at >= to.left) return;
  std::int32_t* out = to.out + m * to.stride + at;
  sum = _mm256_sub_epi32(sum, _mm256_set1_epi32(offset));
  put_sums(out, sum, to.left - at, to.first);
}

inline __m256i widen(__m256i sum, __m256i words) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(words, _mm256_set1_epi16(1)));
}

// NOLINTNEXTLINE(misc-const-correctness): the asm writes the sum
inline __attribute__((always_inline)) void add(__m256i& sum, __m256i codes, __m256i values) {
  const __m256i products = _mm256_maddubs_epi16(codes, values);
  __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(products));  // compilers copy the sum
}

// Sums of one row and a line's halves, that of depths whose codes keep a scale of 4 apart.
struct RowSums {
  __m256i ones[kHalves];
  __m256i fours[kHalves];
};

// One row times kCount lines of at most kRowRun groups. Two lines share the activations' registers.
template <std::size_t kCount>
inline __attribute__((always_inline)) void add_run(const std::int8_t* inputs,
                                                   const std::uint8_t* line, std::size_t step,
                                                   std::size_t groups, RowSums* sums) {
  // Bytes further on, into the second cache and from there into the first, so that weights from
  // memory arrive in time; beyond the end it is harmless.
  constexpr std::size_t kFarAhead = 16384;
  constexpr std::size_t kNearAhead = 3072;
  const __m256i low_mask = _mm256_set1_epi8(0x03);
  const __m256i high_mask = _mm256_set1_epi8(0x0C);
  __m256i low[kCount][kHalves];
#pragma GCC unroll 2
  for (std::size_t c = 0; c < kCount; ++c) {
#pragma GCC unroll 2
    for (std::size_t h = 0; h < kHalves; ++h) low[c][h] = _mm256_setzero_si256();
  }
  for (std::size_t first = 0; first < groups; first += kScaledRun) {
    const std::size_t end = groups - first < kScaledRun ? groups : first + kScaledRun;
    __m256i high[kCount][kHalves];
#pragma GCC unroll 2
    for (std::size_t c = 0; c < kCount; ++c) {
#pragma GCC unroll 2
      for (std::size_t h = 0; h < kHalves; ++h) high[c][h] = _mm256_setzero_si256();
    }
    for (std::size_t g = first; g < end; ++g, line += step, inputs += kGroup) {
      const __m256i input[4] = {broadcast(inputs), broadcast(inputs + 4), broadcast(inputs + 8),
                                broadcast(inputs + 12)};
#pragma GCC unroll 2
      for (std::size_t c = 0; c < kCount; ++c) {
        const std::uint8_t* at = line + c * kPanelBytes;
        _mm_prefetch(reinterpret_cast<const char*>(at) + kFarAhead, _MM_HINT_T1);
        _mm_prefetch(reinterpret_cast<const char*>(at) + kNearAhead, _MM_HINT_T0);
#pragma GCC unroll 2
        for (std::size_t h = 0; h < kHalves; ++h) {
          const __m256i bytes = load(at + 32 * h);
          const __m256i upper = _mm256_srli_epi16(bytes, 4);
          add(low[c][h], _mm256_and_si256(bytes, low_mask), input[0]);
          add(high[c][h], _mm256_and_si256(bytes, high_mask), input[1]);
          add(low[c][h], _mm256_and_si256(upper, low_mask), input[2]);
          add(high[c][h], _mm256_and_si256(upper, high_mask), input[3]);
        }
      }
    }
#pragma GCC unroll 2
    for (std::size_t c = 0; c < kCount; ++c) {
#pragma GCC unroll 2
      for (std::size_t h = 0; h < kHalves; ++h) {
        sums[c].fours[h] = widen(sums[c].fours[h], high[c][h]);
      }
    }
  }
#pragma GCC unroll 2
  for (std::size_t c = 0; c < kCount; ++c) {
#pragma GCC unroll 2
    for (std::size_t h = 0; h < kHalves; ++h) sums[c].ones[h] = widen(sums[c].ones[h], low[c][h]);
  }
}

// One row times a panel. Of the four codes of a byte two keep a scale of 4, which saves two shifts.
__attribute__((noinline)) void one_row(const std::int8_t* activations, const std::uint8_t* panel,
                                       std::size_t lines, std::size_t groups, std::int32_t offset,
                                       const Output& to) {
  const std::size_t step = lines * kPanelBytes;
  RowSums sums[kPanelOutputs / kLineOutputs] = {};
  for (std::size_t first = 0; first < groups; first += kRowRun) {
    const std::size_t count = groups - first < kRowRun ? groups - first : kRowRun;
    const std::int8_t* inputs = activations + first * kGroup;
    const std::uint8_t* line = panel + first * step;
    std::size_t c = 0;
    for (; c + 2 <= lines; c += 2) {
      add_run<2>(inputs, line + c * kPanelBytes, step, count, sums + c);
    }
    if (c < lines) add_run<1>(inputs, line + c * kPanelBytes, step, count, sums + c);
  }
  for (std::size_t c = 0; c < lines; ++c) {
    for (std::size_t h = 0; h < kHalves; ++h) {
      const __m256i fours = _mm256_srai_epi32(sums[c].fours[h], 2);
      store(to, 0, kHalves * c + h, _mm256_add_epi32(sums[c].ones[h], fours), offset);
    }
  }
}

// kRows rows times one line of a panel. Codes are brought to the low bits once for all rows.
template <std::size_t kRows>
__attribute__((noinline)) void some_rows(const Activations& from, std::size_t row,
                                         const std::uint8_t* line, std::size_t step,
                                         std::size_t groups, std::size_t c, const Output& to) {
  const __m256i low_bits = _mm256_set1_epi8(3);
  __m256i sums[kRows][kHalves] = {};
  const std::int8_t* inputs = from.values + row * from.stride;
  for (std::size_t first = 0; first < groups; first += kRun) {
    const std::size_t count = groups - first < kRun ? groups - first : kRun;
    __m256i words[kRows][kHalves];
#pragma GCC unroll 4
    for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
      for (std::size_t h = 0; h < kHalves; ++h) words[m][h] = _mm256_setzero_si256();
    }
    for (std::size_t g = 0; g < count; ++g, line += step, inputs += kGroup) {
      __m256i bytes[kHalves] = {load(line), load(line + 32)};
#pragma GCC unroll 4
      for (std::size_t i = 0; i < 4; ++i) {
        __m256i codes[kHalves];
#pragma GCC unroll 2
        for (std::size_t h = 0; h < kHalves; ++h) {
          codes[h] = _mm256_and_si256(bytes[h], low_bits);
          bytes[h] = _mm256_srli_epi16(bytes[h], 2);
        }
#pragma GCC unroll 4
        for (std::size_t m = 0; m < kRows; ++m) {
          const __m256i input = broadcast(inputs + m * from.stride + 4 * i);
#pragma GCC unroll 2
          for (std::size_t h = 0; h < kHalves; ++h) add(words[m][h], codes[h], input);
        }
      }
    }
#pragma GCC unroll 4
    for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
      for (std::size_t h = 0; h < kHalves; ++h) sums[m][h] = widen(sums[m][h], words[m][h]);
    }
  }
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t h = 0; h < kHalves; ++h) {
      store(to, m, kHalves * c + h, sums[m][h], from.sums[row + m]);
    }
  }
}

void panel_product(const Activations& from, std::size_t row, std::size_t rows,
                   const std::uint8_t* panel, std::size_t lines, std::size_t groups,
                   const Output& to) {
  if (rows == 1) {
    return one_row(from.values + row * from.stride, panel, lines, groups, from.sums[row], to);
  }
  const std::size_t step = lines * kPanelBytes;
  for (std::size_t c = 0; c < lines; ++c) {
    const std::uint8_t* line = panel + c * kPanelBytes;
    switch (rows) {
      case 2:
        some_rows<2>(from, row, line, step, groups, c, to);
        break;
      case 3:
        some_rows<3>(from, row, line, step, groups, c, to);
        break;
      default:
        some_rows<4>(from, row, line, step, groups, c, to);
    }
  }
}

// A chunk of a panel's depths stays in the nearest cache while every row of a block passes over it.
void quads(const Int8MatmulArgs& args) {
  const WeightPanelsView& weights = args.weights;
  Activations block;
  for (std::size_t row = 0; row < args.rows; row += kBlockRows) {
    const std::size_t rows = args.rows - row < kBlockRows ? args.rows - row : kBlockRows;
    // Chunks of even depths; without depths there is still a zero to write.
    const std::size_t most = kBlockBytes / rows / kGroup * kGroup;
    const std::size_t depth = weights.depth > 0 ? weights.depth : 1;
    const std::size_t chunks = (depth + most - 1) / most;
    const std::size_t chunk = ((depth + chunks - 1) / chunks + kGroup - 1) / kGroup * kGroup;
    for (std::size_t first = 0; first < depth; first += chunk) {
      const std::size_t left = weights.depth - first;
      const std::size_t depths = left < chunk ? left : chunk;
      const std::size_t groups = (depths + kGroup - 1) / kGroup;
      block.stride = groups * kGroup;
      stage(args, row, rows, first, depths, block);
      for (std::size_t n = 0; n < args.outputs; n += kPanelOutputs) {
        const Panel panel =
            panel_of<kGroup, kLineOutputs>(weights, (args.first_output + n) / kPanelOutputs);
        const std::uint8_t* bytes = panel.bytes + first / kGroup * panel.lines * kPanelBytes;
        for (std::size_t m = 0; m < rows; m += kMaxRows) {
          panel_product(block, m, rows - m < kMaxRows ? rows - m : kMaxRows, bytes, panel.lines,
                        groups,
                        {.out = args.out + (row + m) * args.out_stride + n,
                         .stride = args.out_stride,
                         .left = args.outputs - n,
                         .first = first == 0});
        }
      }
    }
  }
}

}  // namespace

void int8_matmul(const Int8MatmulArgs& args) noexcept {
  if (args.weights.layout == WeightLayout::kInt8Quads) return quads(args);
  portable::int8_matmul(args);
}

}  // namespace tfmbs::kernels::avx2
