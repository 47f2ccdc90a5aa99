// sdot by element adds, for four outputs, the products of four depths: the sixteen activations of a
// group are one register, and a pair of bits of a byte of weights takes one of its four elements.
#include "int8_matmul/neon_quads.hpp"

namespace tfmbs::kernels::neon_dot {
namespace {

constexpr std::size_t kMaxRows = 8;
// A single row keeps two of the four codes of a byte where they are, scaled by 4 and by 16, which
// saves two shifts; their sums keep to 32 bits.
static_assert(kMaxGroups * (std::size_t{16} * 4 * 2 * 128) <= 0x7FFFFFFF);

// One row times a panel, in runs of groups, so that memory is read nearly in its order.
__attribute__((noinline)) void one_row(const Task& task) {
  // Bytes further on, so that weights from memory arrive in time; beyond the end it is harmless.
  constexpr std::size_t kAhead = 4096;
  constexpr std::size_t kRun = 16;
  constexpr std::size_t kMost = kPanelOutputs / kLineOutputs;
  const std::size_t step = task.step;
  const std::int8_t* activations = task.from->values + task.row * task.from->stride;
  const uint8x16_t first_pair = vdupq_n_u8(0x03);
  const uint8x16_t second_pair = vdupq_n_u8(0x0C);
  const uint8x16_t third_pair = vdupq_n_u8(0x30);
  struct Sums {
    int32x4_t ones[kLineRegisters];
    int32x4_t fours[kLineRegisters];
    int32x4_t sixteens[kLineRegisters];
  };
  Sums panel[kMost];
  for (Sums& line : panel) {
    for (std::size_t r = 0; r < kLineRegisters; ++r) {
      line.ones[r] = line.fours[r] = line.sixteens[r] = vdupq_n_s32(0);
    }
  }
  for (std::size_t first = 0; first < task.groups; first += kRun) {
    const std::size_t count = task.groups - first < kRun ? task.groups - first : kRun;
    for (std::size_t c = 0; c < task.lines; ++c) {
      Sums sums = panel[c];
      const std::uint8_t* line = task.panel + first * step + c * kPanelBytes;
      const std::int8_t* inputs = activations + first * kGroup;
      for (std::size_t g = 0; g < count; ++g, line += step, inputs += kGroup) {
        __builtin_prefetch(line + kAhead);
        const int8x16_t input = vld1q_s8(inputs);
#pragma GCC unroll 4
        for (std::size_t r = 0; r < kLineRegisters; ++r) {
          const uint8x16_t bytes = vld1q_u8(line + 16 * r);
          const int8x16_t codes[4] = {vreinterpretq_s8_u8(vandq_u8(bytes, first_pair)),
                                      vreinterpretq_s8_u8(vandq_u8(bytes, second_pair)),
                                      vreinterpretq_s8_u8(vandq_u8(bytes, third_pair)),
                                      vreinterpretq_s8_u8(vshrq_n_u8(bytes, 6))};
          sums.ones[r] = vdotq_laneq_s32(sums.ones[r], codes[0], input, 0);
          sums.fours[r] = vdotq_laneq_s32(sums.fours[r], codes[1], input, 1);
          sums.sixteens[r] = vdotq_laneq_s32(sums.sixteens[r], codes[2], input, 2);
          sums.ones[r] = vdotq_laneq_s32(sums.ones[r], codes[3], input, 3);
        }
      }
      panel[c] = sums;
    }
  }
  for (std::size_t c = 0; c < task.lines; ++c) {
    const Sums& sums = panel[c];
    for (std::size_t r = 0; r < kLineRegisters; ++r) {
      int32x4_t sum = vsraq_n_s32(sums.ones[r], sums.fours[r], 2);
      sum = vsraq_n_s32(sum, sums.sixteens[r], 4);
      store(task.to, 0, c * kLineOutputs + r * kRegisterOutputs, sum, task.from->sums[task.row]);
    }
  }
}

template <int kPair, std::size_t kRows, std::size_t kRegisters>
inline __attribute__((always_inline)) void add_pair(const uint8x16_t (&bytes)[kRegisters],
                                                    const int8x16_t (&inputs)[kRows],
                                                    int32x4_t (&sums)[kRows][kRegisters]) {
#pragma GCC unroll 4
  for (std::size_t r = 0; r < kRegisters; ++r) {
    const int8x16_t codes = codes_of<kPair>(bytes[r]);
#pragma GCC unroll 8
    for (std::size_t m = 0; m < kRows; ++m) {
      sums[m][r] = vdotq_laneq_s32(sums[m][r], codes, inputs[m], kPair);
    }
  }
}

// kRows rows times kRegisters registers of a line. Codes are brought to the low bits once for all
// rows.
template <std::size_t kRows, std::size_t kRegisters>
__attribute__((noinline)) void some_rows(const Task& task, std::size_t at) {
  const std::size_t step = task.step;
  const std::size_t stride = task.from->stride;
  const std::uint8_t* line = task.panel + at * 4;  // four bytes an output, line after line
  const std::int8_t* inputs = task.from->values + task.row * stride;
  int32x4_t sums[kRows][kRegisters];
#pragma GCC unroll 8
  for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (std::size_t r = 0; r < kRegisters; ++r) sums[m][r] = vdupq_n_s32(0);
  }
  for (std::size_t g = 0; g < task.groups; ++g, line += step, inputs += kGroup) {
    uint8x16_t bytes[kRegisters];
    int8x16_t values[kRows];
#pragma GCC unroll 4
    for (std::size_t r = 0; r < kRegisters; ++r) bytes[r] = vld1q_u8(line + 16 * r);
#pragma GCC unroll 8
    for (std::size_t m = 0; m < kRows; ++m) values[m] = vld1q_s8(inputs + m * stride);
    add_pair<0>(bytes, values, sums);
    add_pair<1>(bytes, values, sums);
    add_pair<2>(bytes, values, sums);
    add_pair<3>(bytes, values, sums);
  }
#pragma GCC unroll 8
  for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (std::size_t r = 0; r < kRegisters; ++r) {
      store(task.to, m, at + kRegisterOutputs * r, sums[m][r], task.from->sums[task.row + m]);
    }
  }
}

// Four registers a row, or two for more than four rows: sixteen sums at most, which leaves room for
// the rows' activations.
template <std::size_t kRows>
void panel_product(const Task& task) {
  constexpr std::size_t kRegisters = kRows <= 4 ? 4 : 2;
  constexpr std::size_t kOutputs = kRegisters * kRegisterOutputs;
  const std::size_t held = task.lines * kLineOutputs;
  const std::size_t outputs = task.to.left < held ? task.to.left : held;
  for (std::size_t at = 0; at < outputs; at += kOutputs) some_rows<kRows, kRegisters>(task, at);
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
