// As int8_matmul over quads by dot products (avx512_panel_product.hpp). A group's sums begin at
// minus what the codes t + 1 have too much, and become fp32 where it ends.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "composed_groups.hpp"
#include "grouped_sums.hpp"
#include "int8_matmul/avx512_codes.hpp"
#include "int8_matmul/avx512_panel_product.hpp"
#include "operations.hpp"
#include "panels.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr std::size_t kUnit = Quads::kGroup;  // depths that a line of 64 bytes holds
constexpr std::size_t kBlock = 32;            // rows that share a block of activations
static_assert(kLeastScaleGroup == 32 && kLeastScaleGroup % kUnit == 0);

// Rows of a chunk of depths, padded with zeros to whole units, and minus the sum of each group: of
// row m and group g, sums[m * groups + g].
struct GroupedActivations {
  alignas(64) std::int8_t values[kBlockBytes];
  std::int32_t sums[kBlockBytes / kLeastScaleGroup];
  std::size_t stride;
  std::size_t groups;
};

inline void stage_groups(const GroupedInt8MatmulArgs& args, std::size_t row, std::size_t rows,
                         std::size_t first, std::size_t depths, GroupedActivations& to) {
  const __m256i ones = _mm256_set1_epi8(1);
  const std::size_t group = args.scales.group;
  for (std::size_t m = 0; m < rows; ++m) {
    const std::int8_t* from = args.activations + (row + m) * args.row_stride + first;
    std::int8_t* values = to.values + m * to.stride;
    std::int32_t* sums = to.sums + m * to.groups;
    for (std::size_t begin = 0; begin < to.stride; begin += group) {
      const std::size_t end = to.stride - begin < group ? to.stride : begin + group;
      __m256i dots = _mm256_setzero_si256();
      for (std::size_t k = begin; k < end; k += 32) {
        const std::size_t left = k < depths ? depths - k : 0;
        const __mmask32 valid = left >= 32 ? ~__mmask32{0} : (__mmask32{1} << left) - 1;
        const __mmask32 room = end - k >= 32 ? ~__mmask32{0} : (__mmask32{1} << (end - k)) - 1;
        const __m256i bytes = _mm256_maskz_loadu_epi8(valid, from + k);
        dots = _mm256_dpbusd_epi32(dots, ones, bytes);
        _mm256_mask_storeu_epi8(values + k, room, bytes);
      }
      __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(dots), _mm256_extracti128_si256(dots, 1));
      sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
      sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
      *sums++ = -_mm_cvtsi128_si32(sum);
    }
  }
}

// Some rows of a block times some groups of a panel.
struct GroupedTask {
  const GroupedActivations* from;
  std::size_t row;
  const std::uint8_t* panel;
  std::size_t lines;        // of the panel
  std::size_t units;        // of all groups
  std::size_t group_units;  // of each group but the last
  const float* scales;      // kGroupScales a group
  ScaledOutput to;
};

inline __mmask16 outputs_of(const ScaledOutput& to, std::size_t at) {
  if (at >= to.left) return 0;
  const std::size_t left = to.left - at;
  return static_cast<__mmask16>(left < kLineOutputs ? (1U << left) - 1 : 0xFFFFU);
}
// Sums of row m from output `at` on.
inline __m512 load_sums(const ScaledOutput& to, std::size_t m, std::size_t at) {
  const __mmask16 mask = to.first ? __mmask16{0} : outputs_of(to, at);
  return _mm512_maskz_loadu_ps(mask, to.out + m * to.stride + at);
}
inline void store_sums(const ScaledOutput& to, std::size_t m, std::size_t at, __m512 sums) {
  _mm512_mask_storeu_ps(to.out + m * to.stride + at, outputs_of(to, at), sums);
}

// The end of a group.
inline __attribute__((always_inline)) __m512 add_group(__m512 sums, __m512i group,
                                                       const float* scales) {
  return _mm512_add_ps(sums, _mm512_mul_ps(_mm512_cvtepi32_ps(group), _mm512_loadu_ps(scales)));
}

// One row times a panel of kLines lines, with masks instead of shifts: the codes i of each byte
// keep a scale of 4^i.
template <std::size_t kLines>
__attribute__((noinline)) void one_grouped_row(const GroupedTask& task) {
  const Quads codes;
  const std::int8_t* inputs = task.from->values + task.row * task.from->stride;
  const std::int32_t* offsets = task.from->sums + task.row * task.from->groups;
  const std::uint8_t* line = task.panel;
  const float* scales = task.scales;
  __m512i masks[4];
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i) masks[i] = _mm512_load_si512(kDecoder.masks[i]);
  __m512 sums[kLines];
  for (std::size_t c = 0; c < kLines; ++c) sums[c] = load_sums(task.to, 0, c * kLineOutputs);
  for (std::size_t first = 0; first < task.units; first += task.group_units) {
    const std::size_t left = task.units - first;
    const std::size_t units = left < task.group_units ? left : task.group_units;
    __m512i dots[kLines][4];
#pragma GCC unroll 4
    for (std::size_t c = 0; c < kLines; ++c) {
      dots[c][0] = _mm512_set1_epi32(*offsets);
#pragma GCC unroll 4
      for (std::size_t i = 1; i < 4; ++i) dots[c][i] = _mm512_setzero_si512();
    }
    for (std::size_t u = 0; u < units; ++u, inputs += kUnit) {
      __m512i input[4];
#pragma GCC unroll 4
      for (std::size_t i = 0; i < 4; ++i) input[i] = broadcast(inputs + 4 * i);
#pragma GCC unroll 4
      for (std::size_t c = 0; c < kLines; ++c, line += kPanelBytes) {
        codes.fetch_ahead(line);
        const __m512i pairs = codes.load(line).pairs;
#pragma GCC unroll 4
        for (std::size_t i = 0; i < 4; ++i) {
          dot(dots[c][i], _mm512_and_si512(pairs, masks[i]), input[i]);
        }
      }
    }
#pragma GCC unroll 4
    for (std::size_t c = 0; c < kLines; ++c) {
      const __m512i low = _mm512_add_epi32(dots[c][0], _mm512_srai_epi32(dots[c][1], 2));
      const __m512i high =
          _mm512_add_epi32(_mm512_srai_epi32(dots[c][2], 4), _mm512_srai_epi32(dots[c][3], 6));
      sums[c] = add_group(sums[c], _mm512_add_epi32(low, high), scales + c * kLineOutputs);
    }
    scales += kGroupScales;
    ++offsets;
  }
  for (std::size_t c = 0; c < kLines; ++c) store_sums(task.to, 0, c * kLineOutputs, sums[c]);
}

// kRows rows times kLines lines of a panel, from line c on. Codes are brought to the low bits once
// for all rows.
template <std::size_t kRows, std::size_t kLines>
__attribute__((noinline)) void some_grouped_rows(const GroupedTask& task, std::size_t c) {
  const std::size_t stride = task.from->stride;
  const std::size_t step = task.lines * kPanelBytes;
  const std::int8_t* inputs = task.from->values + task.row * stride;
  const std::int32_t* offsets = task.from->sums + task.row * task.from->groups;
  const std::uint8_t* line = task.panel + c * kPanelBytes;
  const float* scales = task.scales + c * kLineOutputs;
  const __m512i low_bits = _mm512_set1_epi8(3);
  __m512 sums[kRows][kLines];
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t i = 0; i < kLines; ++i) {
      sums[m][i] = load_sums(task.to, m, (c + i) * kLineOutputs);
    }
  }
  for (std::size_t first = 0; first < task.units; first += task.group_units) {
    const std::size_t left = task.units - first;
    const std::size_t units = left < task.group_units ? left : task.group_units;
    __m512i dots[kRows][kLines];
#pragma GCC unroll 8
    for (std::size_t m = 0; m < kRows; ++m) {
      const __m512i offset = _mm512_set1_epi32(offsets[m * task.from->groups]);
#pragma GCC unroll 2
      for (std::size_t i = 0; i < kLines; ++i) dots[m][i] = offset;
    }
    for (std::size_t u = 0; u < units; ++u, inputs += kUnit, line += step) {
      __m512i pairs[kLines];
#pragma GCC unroll 2
      for (std::size_t i = 0; i < kLines; ++i) {
        pairs[i] = _mm512_load_si512(line + i * kPanelBytes);
      }
#pragma GCC unroll 4
      for (std::size_t k = 0; k < 4; ++k) {
        __m512i codes[kLines];
#pragma GCC unroll 2
        for (std::size_t i = 0; i < kLines; ++i) {
          codes[i] = _mm512_and_si512(pairs[i], low_bits);
          pairs[i] = _mm512_srli_epi16(pairs[i], 2);
        }
#pragma GCC unroll 8
        for (std::size_t m = 0; m < kRows; ++m) {
          const __m512i input = broadcast(inputs + m * stride + 4 * k);
#pragma GCC unroll 2
          for (std::size_t i = 0; i < kLines; ++i) dot(dots[m][i], codes[i], input);
        }
      }
    }
#pragma GCC unroll 8
    for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 2
      for (std::size_t i = 0; i < kLines; ++i) {
        sums[m][i] = add_group(sums[m][i], dots[m][i], scales + i * kLineOutputs);
      }
    }
    scales += kGroupScales;
    ++offsets;
  }
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t i = 0; i < kLines; ++i) {
      store_sums(task.to, m, (c + i) * kLineOutputs, sums[m][i]);
    }
  }
}

template <std::size_t kRows>
void grouped_rows_by_panel(const GroupedTask& task) {
  std::size_t c = 0;
  for (; c + 2 <= task.lines; c += 2) some_grouped_rows<kRows, 2>(task, c);
  if (c < task.lines) some_grouped_rows<kRows, 1>(task, c);
}

void grouped_panel_product(const GroupedTask& task, std::size_t rows) {
  switch (rows) {
    case 1:
      switch (task.lines) {
        case 1:
          return one_grouped_row<1>(task);
        case 2:
          return one_grouped_row<2>(task);
        case 3:
          return one_grouped_row<3>(task);
        default:
          return one_grouped_row<4>(task);
      }
    case 2:
      return grouped_rows_by_panel<2>(task);
    case 3:
      return grouped_rows_by_panel<3>(task);
    case 4:
      return grouped_rows_by_panel<4>(task);
    case 5:
      return grouped_rows_by_panel<5>(task);
    case 6:
      return grouped_rows_by_panel<6>(task);
    case 7:
      return grouped_rows_by_panel<7>(task);
    default:
      return grouped_rows_by_panel<8>(task);
  }
}

// A chunk of a panel's depths stays in the nearest caches while every row of a block passes over
// it.
void grouped_product(const GroupedInt8MatmulArgs& args) {
  const WeightPanelsView& weights = args.weights;
  const std::size_t group = args.scales.group;
  GroupedActivations block;
  for (std::size_t row = 0; row < args.rows; row += kBlock) {
    const std::size_t rows = args.rows - row < kBlock ? args.rows - row : kBlock;
    // Chunks of even depths; without depths there is still a zero to write.
    const std::size_t most = kBlockBytes / rows / group * group;
    const std::size_t depth = weights.depth > 0 ? weights.depth : 1;
    const std::size_t chunks = (depth + most - 1) / most;
    const std::size_t chunk = ((depth + chunks - 1) / chunks + group - 1) / group * group;
    for (std::size_t first = 0; first < depth; first += chunk) {
      const std::size_t left = weights.depth - first;
      const std::size_t depths = left < chunk ? left : chunk;
      const std::size_t units = (depths + kUnit - 1) / kUnit;
      block.stride = units * kUnit;
      block.groups = (depths + group - 1) / group;
      stage_groups(args, row, rows, first, depths, block);
      for (std::size_t n = 0; n < args.outputs; n += kPanelOutputs) {
        const std::size_t p = (args.first_output + n) / kPanelOutputs;
        const Panel panel = panel_of<kUnit, kLineOutputs>(weights, p);
        for (std::size_t m = 0; m < rows; m += kMaxRows) {
          const GroupedTask task{
              .from = &block,
              .row = m,
              .panel = panel.bytes + first / kUnit * panel.lines * kPanelBytes,
              .lines = panel.lines,
              .units = units,
              .group_units = group / kUnit,
              .scales = scales_of(args.scales, p, first / group),
              .to = {.out = static_cast<float*>(args.out) + (row + m) * args.out_stride + n,
                     .stride = args.out_stride,
                     .left = args.outputs - n,
                     .first = first == 0}};
          grouped_panel_product(task, rows - m < kMaxRows ? rows - m : kMaxRows);
        }
      }
    }
  }
}

}  // namespace

void grouped_int8_matmul(const GroupedInt8MatmulArgs& args) noexcept {
  if (args.wide || args.weights.layout != WeightLayout::kInt8Quads) {
    return composed::grouped_int8_matmul(args, int8_matmul);
  }
  grouped_product(args);
}

}  // namespace tfmbs::kernels::avx512
