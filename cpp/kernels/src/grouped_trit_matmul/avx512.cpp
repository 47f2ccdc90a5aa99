// Tables look up the products of four trits (avx512_codes.hpp), as in trit_matmul/avx512.cpp; their
// sums are collected in bytes, a part of a group. Four dot products with 1, each of which picks one
// byte of four, add a part's bytes to 32-bit sums, which become fp32 where the group ends.
#include <immintrin.h>

#include "composed_groups.hpp"
#include "grouped_sums.hpp"
#include "operations.hpp"
#include "panels.hpp"
#include "trit_matmul/avx512_codes.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

// Codes of a part: two parts of 128 depths, three of 256.
constexpr std::size_t kPart = 22;
static_assert(kPart <= kRun);
// Every chunk begins with a group.
static_assert(kBlockTrits % kMostScaleGroup == 0);

constexpr std::size_t kFloats = 16;  // of a register
constexpr std::size_t kQuarters = kPanelOutputs / kFloats;

// Some rows times some panels of a chunk.
struct Task {
  const Activations* from;
  std::size_t row;
  const std::uint8_t* weights;
  std::size_t panel_bytes;  // from a panel to the next
  std::size_t codes;
  std::size_t group_codes;   // of each group but the last
  const float* scales;       // kGroupScales a group
  std::size_t panel_scales;  // from a panel to the next
  ScaledOutput to;
};

inline __mmask16 outputs_of(const ScaledOutput& to, std::size_t at) {
  if (at >= to.left) return 0;
  const std::size_t left = to.left - at;
  return static_cast<__mmask16>(left < kFloats ? (1U << left) - 1 : 0xFFFFU);
}

// Byte 4 i + j is output 16 j + i's.
alignas(64) constexpr struct ByQuarters {
  std::uint8_t from[64];
} kByQuarters = [] {
  ByQuarters order{};
  for (int byte = 0; byte < 64; ++byte) {
    order.from[byte] = static_cast<std::uint8_t>(byte % 4 * 16 + byte / 4);
  }
  return order;
}();

// kRows rows times kPanels panels.
template <std::size_t kRows, std::size_t kPanels>
__attribute__((noinline)) void product(const Task& task) {
  // Bytes further on, so that weights from memory arrive in time; beyond the end it is harmless.
  constexpr std::size_t kAhead = 1024;
  constexpr std::size_t kTiles = kRows * kPanels;
  __m512 sums[kTiles][kQuarters];
  __m512i dots[kTiles][kQuarters];  // of the group's parts so far
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t at = 0; at < kPanels * kQuarters; ++at) {
      const __mmask16 mask = task.to.first ? __mmask16{0} : outputs_of(task.to, at * kFloats);
      sums[m * kPanels + at / kQuarters][at % kQuarters] =
          _mm512_maskz_loadu_ps(mask, task.to.out + m * task.to.stride + at * kFloats);
    }
  }
  const float* scales = task.scales;
  for (std::size_t first = 0; first < task.codes; first += task.group_codes) {
    const std::size_t left = task.codes - first;
    const std::size_t end = first + (left < task.group_codes ? left : task.group_codes);
    for (std::size_t begin = first; begin < end; begin += kPart) {
      const std::size_t part_end = end - begin < kPart ? end : begin + kPart;
      __m512i bytes[kRows][kPanels];
#pragma GCC unroll 8
      for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 8
        for (std::size_t c = 0; c < kPanels; ++c) bytes[m][c] = _mm512_setzero_si512();
      }
      for (std::size_t g = begin; g < part_end; ++g) {
        __m512i line[kPanels];
#pragma GCC unroll 8
        for (std::size_t c = 0; c < kPanels; ++c) {
          const std::uint8_t* at = task.weights + c * task.panel_bytes + g * kPanelBytes;
          if constexpr (kRows == 1) {
            _mm_prefetch(reinterpret_cast<const char*>(at) + kAhead, _MM_HINT_T0);
          }
          line[c] = _mm512_load_si512(at);
        }
#pragma GCC unroll 8
        for (std::size_t m = 0; m < kRows; ++m) {
          const std::uint8_t* table = kProducts.entries[task.from->codes[task.row + m][g]];
          const __m512i low = _mm512_load_si512(table);
          const __m512i high = _mm512_load_si512(table + 64);
#pragma GCC unroll 8
          for (std::size_t c = 0; c < kPanels; ++c) {
            bytes[m][c] =
                _mm512_add_epi8(bytes[m][c], _mm512_permutex2var_epi8(low, line[c], high));
            __asm__("" : "+v"(bytes[m][c]));  // keeps the sum in its register
          }
        }
      }
      const __m512i start = _mm512_set1_epi32(-kBias * static_cast<int>(end - first));
      const __m512i order = _mm512_load_si512(kByQuarters.from);
#pragma GCC unroll 8
      for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 8
        for (std::size_t c = 0; c < kPanels; ++c) {
          const std::size_t tile = m * kPanels + c;
          const __m512i ordered = _mm512_permutexvar_epi8(order, bytes[m][c]);
#pragma GCC unroll 4
          for (std::size_t q = 0; q < kQuarters; ++q) {
            const __m512i one = _mm512_set1_epi32(1 << 8 * q);
            const __m512i dot =
                _mm512_dpbusd_epi32(begin == first ? start : dots[tile][q], ordered, one);
            if (part_end < end) {
              dots[tile][q] = dot;
            } else {
              const __m512 scale = _mm512_loadu_ps(scales + c * task.panel_scales + q * kFloats);
              sums[tile][q] =
                  _mm512_add_ps(sums[tile][q], _mm512_mul_ps(_mm512_cvtepi32_ps(dot), scale));
            }
          }
        }
      }
    }
    scales += kGroupScales;
  }
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t at = 0; at < kPanels * kQuarters; ++at) {
      _mm512_mask_storeu_ps(task.to.out + m * task.to.stride + at * kFloats,
                            outputs_of(task.to, at * kFloats),
                            sums[m * kPanels + at / kQuarters][at % kQuarters]);
    }
  }
}

// From panel p on.
inline Task from_panel(Task task, std::size_t p) {
  const std::size_t before = p * kPanelOutputs;
  task.weights += p * task.panel_bytes;
  task.scales += p * task.panel_scales;
  task.to.out += before;
  task.to.left -= task.to.left < before ? task.to.left : before;
  return task;
}

template <std::size_t kRows>
void rows_by_panels(const Task& task, std::size_t panels) {
  std::size_t p = 0;
  if constexpr (kRows == 1) {
    for (; p + 8 <= panels; p += 8) product<1, 8>(from_panel(task, p));
  }
  for (; p + 4 <= panels; p += 4) product<kRows, 4>(from_panel(task, p));
  for (; p + 2 <= panels; p += 2) product<kRows, 2>(from_panel(task, p));
  if (p < panels) product<kRows, 1>(from_panel(task, p));
}

// The rows of a block times some panels.
void all_rows(Task task, std::size_t rows, std::size_t panels) {
  for (; task.row < rows; task.row += kMaxRows, task.to.out += kMaxRows * task.to.stride) {
    switch (rows - task.row) {
      case 1:
        rows_by_panels<1>(task, panels);
        break;
      case 2:
        rows_by_panels<2>(task, panels);
        break;
      case 3:
        rows_by_panels<3>(task, panels);
        break;
      default:
        rows_by_panels<4>(task, panels);
    }
  }
}

void quads(const GroupedTritMatmulArgs& args) {
  const WeightPanelsView& weights = args.weights;
  const std::size_t group = args.scales.group;
  const std::size_t blocks = (weights.depth + kBlockTrits - 1) / kBlockTrits;
  const std::size_t all_codes = (weights.depth + 3) / 4;
  const std::size_t panel_bytes = all_codes * kPanelBytes;
  const std::size_t panel_scales = (weights.depth + group - 1) / group * kGroupScales;
  const std::size_t chunks = blocks == 0 ? 1 : (blocks + kChunkBlocks - 1) / kChunkBlocks;
  const std::size_t chunk = (blocks + chunks - 1) / chunks;
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
      const std::size_t last = end * kBlockCodes < all_codes ? end * kBlockCodes : all_codes;
      // Some panels' chunk stays in the second cache while every row of the block passes over it.
      constexpr std::size_t kTogether = 8;
      for (std::size_t n = 0; n < args.outputs; n += kTogether * kPanelOutputs) {
        const std::size_t left = args.outputs - n;
        const std::size_t panels = (left + kPanelOutputs - 1) / kPanelOutputs;
        const std::size_t p = (args.first_output + n) / kPanelOutputs;
        const Task task{.from = &block,
                        .row = 0,
                        .weights = weights.bytes + p * panel_bytes + first * kPanelBytes,
                        .panel_bytes = panel_bytes,
                        .codes = last > first ? last - first : 0,
                        .group_codes = group / 4,
                        .scales = scales_of(args.scales, p, begin * kBlockTrits / group),
                        .panel_scales = panel_scales,
                        .to = {.out = static_cast<float*>(args.out) + row * args.out_stride + n,
                               .stride = args.out_stride,
                               .left = left,
                               .first = c == 0}};
        all_rows(task, rows, panels < kTogether ? panels : kTogether);
      }
    }
  }
}

}  // namespace

void grouped_trit_matmul(const GroupedTritMatmulArgs& args) noexcept {
  if (args.wide || args.weights.layout != WeightLayout::kTritQuads) {
    return composed::grouped_trit_matmul(args, trit_matmul);
  }
  quads(args);
}

}  // namespace tfmbs::kernels::avx512
