// As int8_matmul/avxvnni.cpp: vpdpbusd of 256 bits. A group's sums begin at minus what the codes
// t + 1 have too much.
#include "composed_groups.hpp"
#include "grouped_int8_matmul/avx2_quads.hpp"

namespace tfmbs::kernels::avxvnni {
namespace {

constexpr std::size_t kMaxRows = 5;  // two sums of each row are as many as keep two units busy
constexpr std::size_t kMostLines = kPanelOutputs / kLineOutputs;
// A single row keeps the four codes of a byte where they are, scaled by 1, 4, 16 and 64, which
// saves the shifts.
constexpr std::size_t kCodes = 4;

// NOLINTNEXTLINE(misc-const-correctness): the asm writes the sum
inline __attribute__((always_inline)) void add(__m256i& sum, __m256i codes, __m256i values) {
  __asm__("%{vex%} vpdpbusd %2, %1, %0"  // compilers copy the sum
          : "+x"(sum)
          : "x"(codes), "x"(values));
}

// The end of a group.
inline __attribute__((always_inline)) __m256 add_group(__m256 sums, __m256i group,
                                                       const float* scales) {
  return _mm256_add_ps(sums, _mm256_mul_ps(_mm256_cvtepi32_ps(group), _mm256_loadu_ps(scales)));
}

// One row times a panel.
__attribute__((noinline)) void one_row(const GroupedTask& task) {
  // Bytes further on, so that weights from memory arrive in time; beyond the end it is harmless.
  constexpr std::size_t kFarAhead = 16384;
  constexpr std::size_t kNearAhead = 3072;
  const std::int8_t* group_inputs = task.from->values + task.row * task.from->stride;
  const std::int32_t* offsets = task.from->sums + task.row * task.from->groups;
  const std::uint8_t* group_lines = task.panel;
  const float* scales = task.scales;
  const __m256i masks[kCodes] = {_mm256_set1_epi8(0x03), _mm256_set1_epi8(0x0C),
                                 _mm256_set1_epi8(0x30), _mm256_set1_epi8(-0x40)};
  __m256 sums[kMostLines][kHalves];
  for (std::size_t c = 0; c < kMostLines; ++c) {
    for (std::size_t h = 0; h < kHalves; ++h) {
      sums[c][h] = load_sums(task.to, 0, c * kLineOutputs + h * kFloats);
    }
  }
  for (std::size_t first = 0; first < task.units; first += task.group_units) {
    const std::size_t left = task.units - first;
    const std::size_t units = left < task.group_units ? left : task.group_units;
    for (std::size_t c = 0; c < task.lines; ++c) {
      const std::int8_t* inputs = group_inputs;
      const std::uint8_t* line = group_lines + c * kPanelBytes;
      __m256i scaled[kHalves][kCodes];
#pragma GCC unroll 2
      for (std::size_t h = 0; h < kHalves; ++h) {
        scaled[h][0] = _mm256_set1_epi32(*offsets);
#pragma GCC unroll 4
        for (std::size_t i = 1; i < kCodes; ++i) scaled[h][i] = _mm256_setzero_si256();
      }
      for (std::size_t u = 0; u < units; ++u, line += task.step, inputs += kUnit) {
        _mm_prefetch(reinterpret_cast<const char*>(line) + kFarAhead, _MM_HINT_T1);
        _mm_prefetch(reinterpret_cast<const char*>(line) + kNearAhead, _MM_HINT_T0);
        const __m256i bytes[kHalves] = {load(line), load(line + 32)};
#pragma GCC unroll 4
        for (std::size_t i = 0; i < kCodes; ++i) {
          const __m256i input = broadcast(inputs + 4 * i);
#pragma GCC unroll 2
          for (std::size_t h = 0; h < kHalves; ++h) {
            add(scaled[h][i], _mm256_and_si256(bytes[h], masks[i]), input);
          }
        }
      }
#pragma GCC unroll 2
      for (std::size_t h = 0; h < kHalves; ++h) {
        const __m256i low = _mm256_add_epi32(scaled[h][0], _mm256_srai_epi32(scaled[h][1], 2));
        const __m256i high = _mm256_add_epi32(_mm256_srai_epi32(scaled[h][2], 4),
                                              _mm256_srai_epi32(scaled[h][3], 6));
        sums[c][h] = add_group(sums[c][h], _mm256_add_epi32(low, high),
                               scales + c * kLineOutputs + h * kFloats);
      }
    }
    group_inputs += units * kUnit;
    group_lines += units * task.step;
    scales += kGroupScales;
    ++offsets;
  }
  for (std::size_t c = 0; c < task.lines; ++c) {
    for (std::size_t h = 0; h < kHalves; ++h) {
      store_sums(task.to, 0, c * kLineOutputs + h * kFloats, sums[c][h]);
    }
  }
}

// kRows rows times kRegisters registers of a panel's lines, from register `at` on. Codes are
// brought to the low bits once for all rows.
template <std::size_t kRows, std::size_t kRegisters>
__attribute__((noinline)) void some_rows(const GroupedTask& task, std::size_t at) {
  const std::size_t stride = task.from->stride;
  const std::uint8_t* line = task.panel + at * sizeof(__m256i);
  const std::int8_t* inputs = task.from->values + task.row * stride;
  const std::int32_t* offsets = task.from->sums + task.row * task.from->groups;
  const float* scales = task.scales + at * kFloats;
  const __m256i low_bits = _mm256_set1_epi8(3);
  __m256 sums[kRows][kRegisters];
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t r = 0; r < kRegisters; ++r) {
      sums[m][r] = load_sums(task.to, m, (at + r) * kFloats);
    }
  }
  for (std::size_t first = 0; first < task.units; first += task.group_units) {
    const std::size_t left = task.units - first;
    const std::size_t units = left < task.group_units ? left : task.group_units;
    __m256i dots[kRows][kRegisters];
#pragma GCC unroll 5
    for (std::size_t m = 0; m < kRows; ++m) {
      const __m256i offset = _mm256_set1_epi32(offsets[m * task.from->groups]);
#pragma GCC unroll 4
      for (std::size_t r = 0; r < kRegisters; ++r) dots[m][r] = offset;
    }
    for (std::size_t u = 0; u < units; ++u, line += task.step, inputs += kUnit) {
      __m256i bytes[kRegisters];
#pragma GCC unroll 4
      for (std::size_t r = 0; r < kRegisters; ++r) bytes[r] = load(line + r * sizeof(__m256i));
#pragma GCC unroll 4
      for (std::size_t i = 0; i < kCodes; ++i) {
        if constexpr (kRows < kRegisters) {  // fewer registers for activations than for codes
          __m256i input[kRows];
#pragma GCC unroll 5
          for (std::size_t m = 0; m < kRows; ++m) input[m] = broadcast(inputs + m * stride + 4 * i);
#pragma GCC unroll 4
          for (std::size_t r = 0; r < kRegisters; ++r) {
            const __m256i codes = _mm256_and_si256(bytes[r], low_bits);
            bytes[r] = _mm256_srli_epi16(bytes[r], 2);
#pragma GCC unroll 5
            for (std::size_t m = 0; m < kRows; ++m) add(dots[m][r], codes, input[m]);
          }
        } else {
          __m256i codes[kRegisters];
#pragma GCC unroll 4
          for (std::size_t r = 0; r < kRegisters; ++r) {
            codes[r] = _mm256_and_si256(bytes[r], low_bits);
            bytes[r] = _mm256_srli_epi16(bytes[r], 2);
          }
#pragma GCC unroll 5
          for (std::size_t m = 0; m < kRows; ++m) {
            const __m256i input = broadcast(inputs + m * stride + 4 * i);
#pragma GCC unroll 4
            for (std::size_t r = 0; r < kRegisters; ++r) add(dots[m][r], codes[r], input);
          }
        }
      }
    }
#pragma GCC unroll 5
    for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
      for (std::size_t r = 0; r < kRegisters; ++r) {
        sums[m][r] = add_group(sums[m][r], dots[m][r], scales + r * kFloats);
      }
    }
    scales += kGroupScales;
    ++offsets;
  }
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t r = 0; r < kRegisters; ++r) {
      store_sums(task.to, m, (at + r) * kFloats, sums[m][r]);
    }
  }
}

// Two rows take two lines at once, or their sums would be too few to keep the multipliers busy.
template <std::size_t kRows>
void panel_product(const GroupedTask& task) {
  const std::size_t registers = task.lines * kHalves;
  std::size_t at = 0;
  if constexpr (kRows == 2) {
    for (; at + 2 * kHalves <= registers; at += 2 * kHalves) {
      some_rows<kRows, 2 * kHalves>(task, at);
    }
  }
  for (; at < registers; at += kHalves) some_rows<kRows, kHalves>(task, at);
}

}  // namespace

void grouped_int8_matmul(const GroupedInt8MatmulArgs& args) noexcept {
  if (args.wide || args.weights.layout != WeightLayout::kInt8Quads) {
    return composed::grouped_int8_matmul(args, int8_matmul);
  }
  grouped_quads(args, kMaxRows, stage_groups<1>, [](const GroupedTask& task) {
    switch (task.rows) {
      case 1:
        return one_row(task);
      case 2:
        return panel_product<2>(task);
      case 3:
        return panel_product<3>(task);
      case 4:
        return panel_product<4>(task);
      default:
        return panel_product<5>(task);
    }
  });
}

}  // namespace tfmbs::kernels::avxvnni
