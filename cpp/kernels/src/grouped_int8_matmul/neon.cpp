// As int8_matmul/neon.cpp: smlal adds products to 16-bit sums, one a depth of four, which hold a
// whole group's.
#include "composed_groups.hpp"
#include "grouped_int8_matmul/neon_quads.hpp"

namespace tfmbs::kernels::neon {
namespace {

constexpr std::size_t kMaxRows = 4;
// A unit adds four products of at most 2 * 127.
static_assert(kMostScaleGroup / kUnit * 4 * 2 * 127 <= 0x7FFF);

// 16-bit sums of kRows rows and kRegisters times four outputs, four a (row, output).
template <std::size_t kRows, std::size_t kRegisters>
struct Words {
  int16x8_t low[kRows][kRegisters];
  int16x8_t high[kRows][kRegisters];
};

template <int kPair, std::size_t kRows, std::size_t kRegisters>
inline __attribute__((always_inline)) void add_pair(const uint8x16_t (&bytes)[kRegisters],
                                                    const int32x4_t (&inputs)[kRows],
                                                    Words<kRows, kRegisters>& words) {
  int8x16_t codes[kRegisters];
#pragma GCC unroll 4
  for (std::size_t r = 0; r < kRegisters; ++r) codes[r] = codes_of<kPair>(bytes[r]);
#pragma GCC unroll 4
  for (std::size_t m = 0; m < kRows; ++m) {
    const int8x16_t input = vreinterpretq_s8_s32(vdupq_laneq_s32(inputs[m], kPair));
#pragma GCC unroll 4
    for (std::size_t r = 0; r < kRegisters; ++r) {
      words.low[m][r] = vmlal_s8(words.low[m][r], vget_low_s8(codes[r]), vget_low_s8(input));
      words.high[m][r] = vmlal_high_s8(words.high[m][r], codes[r], input);
    }
  }
}

// kRows rows times kRegisters registers of a line.
template <std::size_t kRows, std::size_t kRegisters>
__attribute__((noinline)) void some_rows(const GroupedTask& task, std::size_t at) {
  // Bytes further on, so that weights from memory arrive in time; beyond the end it is harmless.
  constexpr std::size_t kAhead = 4096;
  const std::size_t stride = task.from->stride;
  const std::uint8_t* line = task.panel + at * 4;  // four bytes an output, line after line
  const std::int8_t* inputs = task.from->values + task.row * stride;
  const std::int32_t* offsets = task.from->sums + task.row * task.from->groups;
  const float* scales = task.scales + at;
  float32x4_t sums[kRows][kRegisters];
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t r = 0; r < kRegisters; ++r) {
      sums[m][r] = load_sums(task.to, m, at + r * kRegisterOutputs);
    }
  }
  for (std::size_t first = 0; first < task.units; first += task.group_units) {
    const std::size_t left = task.units - first;
    const std::size_t units = left < task.group_units ? left : task.group_units;
    Words<kRows, kRegisters> words;
#pragma GCC unroll 4
    for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
      for (std::size_t r = 0; r < kRegisters; ++r) {
        words.low[m][r] = words.high[m][r] = vdupq_n_s16(0);
      }
    }
    for (std::size_t u = 0; u < units; ++u, line += task.step, inputs += kUnit) {
      if constexpr (kRows == 1) __builtin_prefetch(line + kAhead);
      uint8x16_t bytes[kRegisters];
#pragma GCC unroll 4
      for (std::size_t r = 0; r < kRegisters; ++r) bytes[r] = vld1q_u8(line + 16 * r);
      int32x4_t values[kRows];
#pragma GCC unroll 4
      for (std::size_t m = 0; m < kRows; ++m) {
        values[m] = vreinterpretq_s32_s8(vld1q_s8(inputs + m * stride));
      }
      add_pair<0>(bytes, values, words);
      add_pair<1>(bytes, values, words);
      add_pair<2>(bytes, values, words);
      add_pair<3>(bytes, values, words);
    }
    for (std::size_t m = 0; m < kRows; ++m) {
      const int32x4_t offset = vdupq_n_s32(offsets[m * task.from->groups]);
      for (std::size_t r = 0; r < kRegisters; ++r) {
        const int32x4_t group =
            vpaddq_s32(vpaddlq_s16(words.low[m][r]), vpaddlq_s16(words.high[m][r]));
        sums[m][r] = add_group(sums[m][r], vaddq_s32(group, offset), scales + r * kRegisterOutputs);
      }
    }
    scales += kGroupScales;
    ++offsets;
  }
  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t r = 0; r < kRegisters; ++r) {
      store_sums(task.to, m, at + r * kRegisterOutputs, sums[m][r]);
    }
  }
}

// As many outputs at a time as leave the sums in registers.
template <std::size_t kRows>
void panel_product(const GroupedTask& task) {
  constexpr std::size_t kRegisters = kRows <= 2 ? 4 : 2;
  constexpr std::size_t kOutputs = kRegisters * kRegisterOutputs;
  const std::size_t held = task.lines * kLineOutputs;
  const std::size_t outputs = task.to.left < held ? task.to.left : held;
  for (std::size_t at = 0; at < outputs; at += kOutputs) some_rows<kRows, kRegisters>(task, at);
}

}  // namespace

void grouped_int8_matmul(const GroupedInt8MatmulArgs& args) noexcept {
  if (args.wide || args.weights.layout != WeightLayout::kInt8Quads) {
    return composed::grouped_int8_matmul(args, int8_matmul);
  }
  grouped_quads(args, kMaxRows, stage_groups, [](const GroupedTask& task) {
    switch (task.rows) {
      case 1:
        return panel_product<1>(task);
      case 2:
        return panel_product<2>(task);
      case 3:
        return panel_product<3>(task);
      default:
        return panel_product<4>(task);
    }
  });
}

}  // namespace tfmbs::kernels::neon
