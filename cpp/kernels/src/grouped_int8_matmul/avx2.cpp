// As int8_matmul/avx2.cpp: vpmaddubsw of the codes t + 1. Sums of a group are kept in words of 16
// bits, two an output, which begin at minus what the codes have too much. So a word ends as the sum
// of half the depths' products, at most 128 * 127, and may wrap around on its way. One
// multiplication by ones gives the group's sums in 32 bits.
#include "composed_groups.hpp"
#include "grouped_int8_matmul/avx2_quads.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

constexpr std::size_t kMaxRows = 4;  // whose sums stay in registers
constexpr std::size_t kMostLines = kPanelOutputs / kLineOutputs;
static_assert(kMostScaleGroup / 2 * 127 <= 0x7FFF);
// Units whose words of codes scaled by 4 do not wrap: a unit adds 2 * 4 pairs of at most 508.
constexpr std::size_t kScaledRun = 8;
static_assert(kScaledRun * 2 * 4 * 508 <= 0x7FFF);

// NOLINTNEXTLINE(misc-const-correctness): the asm writes the sum
inline __attribute__((always_inline)) void add(__m256i& sum, __m256i codes, __m256i values) {
  const __m256i products = _mm256_maddubs_epi16(codes, values);
  __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(products));  // compilers copy the sum
}

// The end of a group.
inline __attribute__((always_inline)) __m256 add_group(__m256 sums, __m256i words,
                                                       const float* scales) {
  const __m256i group = _mm256_madd_epi16(words, _mm256_set1_epi16(1));
  return _mm256_add_ps(sums, _mm256_mul_ps(_mm256_cvtepi32_ps(group), _mm256_loadu_ps(scales)));
}

// One row times kCount lines of a group. Of the four codes of a byte two keep a scale of 4, which
// saves two shifts; two lines share the activations' registers.
template <std::size_t kCount>
inline __attribute__((always_inline)) void row_group(const std::int8_t* inputs,
                                                     const std::uint8_t* line, std::size_t step,
                                                     std::size_t units, std::int32_t offset,
                                                     const float* scales, __m256 (*sums)[kHalves]) {
  // Bytes further on, into the second cache and from there into the first, so that weights from
  // memory arrive in time; beyond the end it is harmless.
  constexpr std::size_t kFarAhead = 16384;
  constexpr std::size_t kNearAhead = 3072;
  const __m256i low_mask = _mm256_set1_epi8(0x03);
  const __m256i high_mask = _mm256_set1_epi8(0x0C);
  __m256i words[kCount][kHalves];
#pragma GCC unroll 2
  for (std::size_t c = 0; c < kCount; ++c) {
#pragma GCC unroll 2
    for (std::size_t h = 0; h < kHalves; ++h) words[c][h] = _mm256_set1_epi32(offset);
  }
  for (std::size_t first = 0; first < units; first += kScaledRun) {
    const std::size_t end = units - first < kScaledRun ? units : first + kScaledRun;
    __m256i scaled[kCount][kHalves];
#pragma GCC unroll 2
    for (std::size_t c = 0; c < kCount; ++c) {
#pragma GCC unroll 2
      for (std::size_t h = 0; h < kHalves; ++h) scaled[c][h] = _mm256_setzero_si256();
    }
    for (std::size_t u = first; u < end; ++u, line += step, inputs += kUnit) {
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
          add(words[c][h], _mm256_and_si256(bytes, low_mask), input[0]);
          add(scaled[c][h], _mm256_and_si256(bytes, high_mask), input[1]);
          add(words[c][h], _mm256_and_si256(upper, low_mask), input[2]);
          add(scaled[c][h], _mm256_and_si256(upper, high_mask), input[3]);
        }
      }
    }
#pragma GCC unroll 2
    for (std::size_t c = 0; c < kCount; ++c) {
#pragma GCC unroll 2
      for (std::size_t h = 0; h < kHalves; ++h) {
        words[c][h] = _mm256_add_epi16(words[c][h], _mm256_srai_epi16(scaled[c][h], 2));
      }
    }
  }
#pragma GCC unroll 2
  for (std::size_t c = 0; c < kCount; ++c) {
#pragma GCC unroll 2
    for (std::size_t h = 0; h < kHalves; ++h) {
      sums[c][h] = add_group(sums[c][h], words[c][h], scales + c * kLineOutputs + h * kFloats);
    }
  }
}

// One row times a panel.
__attribute__((noinline)) void one_row(const GroupedTask& task) {
  const std::int8_t* inputs = task.from->values + task.row * task.from->stride;
  const std::int32_t* offsets = task.from->sums + task.row * task.from->groups;
  const std::uint8_t* line = task.panel;
  const float* scales = task.scales;
  __m256 sums[kMostLines][kHalves];
  for (std::size_t c = 0; c < kMostLines; ++c) {
    for (std::size_t h = 0; h < kHalves; ++h) {
      sums[c][h] = load_sums(task.to, 0, c * kLineOutputs + h * kFloats);
    }
  }
  for (std::size_t first = 0; first < task.units; first += task.group_units) {
    const std::size_t left = task.units - first;
    const std::size_t units = left < task.group_units ? left : task.group_units;
    std::size_t c = 0;
    for (; c + 2 <= task.lines; c += 2) {
      row_group<2>(inputs, line + c * kPanelBytes, task.step, units, *offsets,
                   scales + c * kLineOutputs, sums + c);
    }
    if (c < task.lines) {
      row_group<1>(inputs, line + c * kPanelBytes, task.step, units, *offsets,
                   scales + c * kLineOutputs, sums + c);
    }
    inputs += units * kUnit;
    line += units * task.step;
    scales += kGroupScales;
    ++offsets;
  }
  for (std::size_t c = 0; c < task.lines; ++c) {
    for (std::size_t h = 0; h < kHalves; ++h) {
      store_sums(task.to, 0, c * kLineOutputs + h * kFloats, sums[c][h]);
    }
  }
}

// kRows rows times one line of a panel. Codes are brought to the low bits once for all rows.
template <std::size_t kRows>
__attribute__((noinline)) void some_rows(const GroupedTask& task, std::size_t c) {
  const std::size_t stride = task.from->stride;
  const std::uint8_t* line = task.panel + c * kPanelBytes;
  const std::int8_t* inputs = task.from->values + task.row * stride;
  const std::int32_t* offsets = task.from->sums + task.row * task.from->groups;
  const float* scales = task.scales + c * kLineOutputs;
  const __m256i low_bits = _mm256_set1_epi8(3);
  __m256 sums[kRows][kHalves];
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t h = 0; h < kHalves; ++h) {
      sums[m][h] = load_sums(task.to, m, c * kLineOutputs + h * kFloats);
    }
  }
  for (std::size_t first = 0; first < task.units; first += task.group_units) {
    const std::size_t left = task.units - first;
    const std::size_t units = left < task.group_units ? left : task.group_units;
    __m256i words[kRows][kHalves];
#pragma GCC unroll 4
    for (std::size_t m = 0; m < kRows; ++m) {
      const __m256i offset = _mm256_set1_epi32(offsets[m * task.from->groups]);
#pragma GCC unroll 2
      for (std::size_t h = 0; h < kHalves; ++h) words[m][h] = offset;
    }
    for (std::size_t u = 0; u < units; ++u, line += task.step, inputs += kUnit) {
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
      for (std::size_t h = 0; h < kHalves; ++h) {
        sums[m][h] = add_group(sums[m][h], words[m][h], scales + h * kFloats);
      }
    }
    scales += kGroupScales;
    ++offsets;
  }
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t h = 0; h < kHalves; ++h) {
      store_sums(task.to, m, c * kLineOutputs + h * kFloats, sums[m][h]);
    }
  }
}

template <std::size_t kRows>
void panel_product(const GroupedTask& task) {
  for (std::size_t c = 0; c < task.lines; ++c) some_rows<kRows>(task, c);
}

}  // namespace

void grouped_int8_matmul(const GroupedInt8MatmulArgs& args) noexcept {
  if (args.wide || args.weights.layout != WeightLayout::kInt8Quads) {
    return composed::grouped_int8_matmul(args, int8_matmul);
  }
  grouped_quads(args, kMaxRows, stage_groups<2>, [](const GroupedTask& task) {
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
