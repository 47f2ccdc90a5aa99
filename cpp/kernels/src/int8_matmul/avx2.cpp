// vpmaddubsw multiplies unsigned by signed bytes and adds two products: a weight goes in as its
// code t + 1 in 0, 1, 2, and the row's sum of activations is subtracted in the end. Sums are kept
// in 16 bits as long as they fit, then in 32, modulo 2^32; the result fits.
#include "int8_matmul/avx2_quads.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

constexpr std::size_t kMaxRows = 4;  // whose sums stay in registers
// Groups whose sums fit 16 bits: a group adds at most 4 pairs of 2 * 2 * 127 = 508. A single row
// has two sums, of two pairs each, one of them scaled by 4.
constexpr std::size_t kRun = 16;
constexpr std::size_t kScaledRun = 8;
constexpr std::size_t kRowRun = 32;
static_assert(kRun * 4 * 508 <= 0x7FFF && kScaledRun * 2 * 4 * 508 <= 0x7FFF &&
              kRowRun * 2 * 508 <= 0x7FFF);
// A single row's scaled sums keep to 32 bits.
static_assert(kMaxGroups * (std::size_t{4} * 4 * 508) <= 0x7FFFFFFF);

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
__attribute__((noinline)) void one_row(const Task& task) {
  const std::int8_t* activations = task.from->values + task.row * task.from->stride;
  RowSums sums[kPanelOutputs / kLineOutputs] = {};
  for (std::size_t first = 0; first < task.groups; first += kRowRun) {
    const std::size_t count = task.groups - first < kRowRun ? task.groups - first : kRowRun;
    const std::int8_t* inputs = activations + first * kGroup;
    const std::uint8_t* line = task.panel + first * task.step;
    std::size_t c = 0;
    for (; c + 2 <= task.lines; c += 2) {
      add_run<2>(inputs, line + c * kPanelBytes, task.step, count, sums + c);
    }
    if (c < task.lines) add_run<1>(inputs, line + c * kPanelBytes, task.step, count, sums + c);
  }
  for (std::size_t c = 0; c < task.lines; ++c) {
    for (std::size_t h = 0; h < kHalves; ++h) {
      const __m256i fours = _mm256_srai_epi32(sums[c].fours[h], 2);
      store(task.to, 0, kHalves * c + h, _mm256_add_epi32(sums[c].ones[h], fours),
            task.from->sums[task.row]);
    }
  }
}

// kRows rows times one line of a panel. Codes are brought to the low bits once for all rows.
template <std::size_t kRows>
__attribute__((noinline)) void some_rows(const Task& task, std::size_t c) {
  const std::size_t stride = task.from->stride;
  const std::uint8_t* line = task.panel + c * kPanelBytes;
  const std::int8_t* inputs = task.from->values + task.row * stride;
  const __m256i low_bits = _mm256_set1_epi8(3);
  __m256i sums[kRows][kHalves] = {};
  for (std::size_t first = 0; first < task.groups; first += kRun) {
    const std::size_t count = task.groups - first < kRun ? task.groups - first : kRun;
    __m256i words[kRows][kHalves];
#pragma GCC unroll 4
    for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
      for (std::size_t h = 0; h < kHalves; ++h) words[m][h] = _mm256_setzero_si256();
    }
    for (std::size_t g = 0; g < count; ++g, line += task.step, inputs += kGroup) {
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
          const __m256i input = broadcast(inputs + m * stride + 4 * i);
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
      store(task.to, m, kHalves * c + h, sums[m][h], task.from->sums[task.row + m]);
    }
  }
}

template <std::size_t kRows>
void panel_product(const Task& task) {
  for (std::size_t c = 0; c < task.lines; ++c) some_rows<kRows>(task, c);
}

}  // namespace

void int8_matmul(const Int8MatmulArgs& args) noexcept {
  if (args.weights.layout != WeightLayout::kInt8Quads) return portable::int8_matmul(args);
  quads(args, kMaxRows, stage, [](const Task& task) {
    switch (task.rows) {
      case 1:
        return one_row(task);
      case 2:
        return panel_product<2>(task);
      case 3:
        return panel_product<3>(task);
      default:
        return panel_product<4>(task);
    }
  });
}

}  // namespace tfmbs::kernels::avx2
