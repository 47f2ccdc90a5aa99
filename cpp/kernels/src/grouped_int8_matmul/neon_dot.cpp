// As int8_matmul/neon_dot.cpp: sdot by element adds, for four outputs, the products of four depths.
// A group's sums begin at minus what the codes t + 1 have too much.
#include "composed_groups.hpp"
#include "grouped_int8_matmul/neon_quads.hpp"

namespace tfmbs::kernels::neon_dot {
namespace {

constexpr std::size_t kMaxRows = 8;

// One row times a panel, a line at a time; the group's lines stay in the nearest cache. Two of the
// four codes of a byte are left where they are, scaled by 4 and by 16, which saves two shifts.
__attribute__((noinline)) void one_row(const GroupedTask& task) {
  // Bytes further on, so that weights from memory arrive in time; beyond the end it is harmless.
  constexpr std::size_t kAhead = 4096;
  constexpr std::size_t kMost = kPanelOutputs / kLineOutputs;
  const std::int8_t* group_inputs = task.from->values + task.row * task.from->stride;
  const std::int32_t* offsets = task.from->sums + task.row * task.from->groups;
  const std::uint8_t* group_lines = task.panel;
  const float* scales = task.scales;
  const uint8x16_t first_pair = vdupq_n_u8(0x03);
  const uint8x16_t second_pair = vdupq_n_u8(0x0C);
  const uint8x16_t third_pair = vdupq_n_u8(0x30);
  float32x4_t sums[kMost][kLineRegisters];
  for (std::size_t c = 0; c < kMost; ++c) {
    for (std::size_t r = 0; r < kLineRegisters; ++r) {
      sums[c][r] = load_sums(task.to, 0, c * kLineOutputs + r * kRegisterOutputs);
    }
  }
  for (std::size_t first = 0; first < task.units; first += task.group_units) {
    const std::size_t left = task.units - first;
    const std::size_t units = left < task.group_units ? left : task.group_units;
    for (std::size_t c = 0; c < task.lines; ++c) {
      const std::int8_t* inputs = group_inputs;
      const std::uint8_t* line = group_lines + c * kPanelBytes;
      int32x4_t ones[kLineRegisters];
      int32x4_t fours[kLineRegisters];
      int32x4_t sixteens[kLineRegisters];
#pragma GCC unroll 4
      for (std::size_t r = 0; r < kLineRegisters; ++r) {
        ones[r] = vdupq_n_s32(*offsets);
        fours[r] = sixteens[r] = vdupq_n_s32(0);
      }
      for (std::size_t u = 0; u < units; ++u, line += task.step, inputs += kUnit) {
        __builtin_prefetch(line + kAhead);
        const int8x16_t input = vld1q_s8(inputs);
#pragma GCC unroll 4
        for (std::size_t r = 0; r < kLineRegisters; ++r) {
          const uint8x16_t bytes = vld1q_u8(line + 16 * r);
          const int8x16_t codes[4] = {vreinterpretq_s8_u8(vandq_u8(bytes, first_pair)),
                                      vreinterpretq_s8_u8(vandq_u8(bytes, second_pair)),
                                      vreinterpretq_s8_u8(vandq_u8(bytes, third_pair)),
                                      vreinterpretq_s8_u8(vshrq_n_u8(bytes, 6))};
          ones[r] = vdotq_laneq_s32(ones[r], codes[0], input, 0);
          fours[r] = vdotq_laneq_s32(fours[r], codes[1], input, 1);
          sixteens[r] = vdotq_laneq_s32(sixteens[r], codes[2], input, 2);
          ones[r] = vdotq_laneq_s32(ones[r], codes[3], input, 3);
        }
      }
#pragma GCC unroll 4
      for (std::size_t r = 0; r < kLineRegisters; ++r) {
        const int32x4_t group = vsraq_n_s32(vsraq_n_s32(ones[r], fours[r], 2), sixteens[r], 4);
        sums[c][r] = add_group(sums[c][r], group, scales + c * kLineOutputs + r * kRegisterOutputs);
      }
    }
    group_inputs += units * kUnit;
    group_lines += units * task.step;
    scales += kGroupScales;
    ++offsets;
  }
  for (std::size_t c = 0; c < task.lines; ++c) {
    for (std::size_t r = 0; r < kLineRegisters; ++r) {
      store_sums(task.to, 0, c * kLineOutputs + r * kRegisterOutputs, sums[c][r]);
    }
  }
}

template <int kPair, std::size_t kRows, std::size_t kRegisters>
inline __attribute__((always_inline)) void add_pair(const uint8x16_t (&bytes)[kRegisters],
                                                    const int8x16_t (&inputs)[kRows],
                                                    int32x4_t (&dots)[kRows][kRegisters]) {
#pragma GCC unroll 4
  for (std::size_t r = 0; r < kRegisters; ++r) {
    const int8x16_t codes = codes_of<kPair>(bytes[r]);
#pragma GCC unroll 8
    for (std::size_t m = 0; m < kRows; ++m) {
      dots[m][r] = vdotq_laneq_s32(dots[m][r], codes, inputs[m], kPair);
    }
  }
}

// kRows rows times kRegisters registers of a line. Codes are brought to the low bits once for all
// rows.
template <std::size_t kRows, std::size_t kRegisters>
__attribute__((noinline)) void some_rows(const GroupedTask& task, std::size_t at) {
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
    int32x4_t dots[kRows][kRegisters];
#pragma GCC unroll 8
    for (std::size_t m = 0; m < kRows; ++m) {
      const int32x4_t offset = vdupq_n_s32(offsets[m * task.from->groups]);
#pragma GCC unroll 4
      for (std::size_t r = 0; r < kRegisters; ++r) dots[m][r] = offset;
    }
    for (std::size_t u = 0; u < units; ++u, line += task.step, inputs += kUnit) {
      uint8x16_t bytes[kRegisters];
      int8x16_t values[kRows];
#pragma GCC unroll 4
      for (std::size_t r = 0; r < kRegisters; ++r) bytes[r] = vld1q_u8(line + 16 * r);
#pragma GCC unroll 8
      for (std::size_t m = 0; m < kRows; ++m) values[m] = vld1q_s8(inputs + m * stride);
      add_pair<0>(bytes, values, dots);
      add_pair<1>(bytes, values, dots);
      add_pair<2>(bytes, values, dots);
      add_pair<3>(bytes, values, dots);
    }
#pragma GCC unroll 8
    for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
      for (std::size_t r = 0; r < kRegisters; ++r) {
        sums[m][r] = add_group(sums[m][r], dots[m][r], scales + r * kRegisterOutputs);
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

// Four registers a row, or two for more than four rows: sixteen sums at most, which leaves room for
// the rows' activations.
template <std::size_t kRows>
void panel_product(const GroupedTask& task) {
  constexpr std::size_t kRegisters = kRows <= 4 ? 4 : 2;
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
        return one_row(task);
      case 2:
        return panel_product<2>(task);
      case 3:
        return panel_product<3>(task);
      case 4:
        return panel_product<4>(task);
      case 5:
        return panel_product<5>(task);
      case 6:
        return panel_product<6>(task);
      case 7:
        return panel_product<7>(task);
      default:
        return panel_product<8>(task);
    }
  });
}

}  // namespace tfmbs::kernels::neon_dot
