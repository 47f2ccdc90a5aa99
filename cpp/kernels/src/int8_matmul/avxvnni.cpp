// vpdpbusd of 256 bits, which CPUs without AVX-512 have too: four unsigned times four signed bytes,
// added to 32 bits. A weight goes in as its code t + 1, and the row's sum of activations is
// subtracted in the end. Sums wrap modulo 2^32; the result fits.
#include "int8_matmul/avx2_quads.hpp"

namespace tfmbs::kernels::avxvnni {
namespace {

// Ten sums of two registers a row: as many as are under way where two start a cycle and each takes
// five.
constexpr std::size_t kMaxRows = 5;
// A single row keeps the four codes of a byte where they are, scaled by 1, 4, 16 and 64, which
// saves the shifts; the sums of each scale keep to 32 bits.
constexpr std::size_t kCodes = 4;
static_assert(kMaxGroups * (std::size_t{64} * 4 * 2 * 128) <= 0x7FFFFFFF);

// NOLINTNEXTLINE(misc-const-correctness): the asm writes the sum
inline __attribute__((always_inline)) void add(__m256i& sum, __m256i codes, __m256i values) {
  __asm__("%{vex%} vpdpbusd %2, %1, %0"  // compilers copy the sum
          : "+x"(sum)
          : "x"(codes), "x"(values));
}

// One row times a panel, in runs of groups, so that memory is read nearly in its order.
__attribute__((noinline)) void one_row(const Task& task) {
  // Bytes further on, so that weights from memory arrive in time; beyond the end it is harmless.
  constexpr std::size_t kFarAhead = 16384;
  constexpr std::size_t kNearAhead = 3072;
  constexpr std::size_t kRun = 32;
  constexpr std::size_t kMostLines = kPanelOutputs / kLineOutputs;
  const std::int8_t* activations = task.from->values + task.row * task.from->stride;
  const __m256i masks[kCodes] = {_mm256_set1_epi8(0x03), _mm256_set1_epi8(0x0C),
                                 _mm256_set1_epi8(0x30), _mm256_set1_epi8(-0x40)};
  struct Sums {
    __m256i scaled[kHalves][kCodes];
  };
  Sums panel[kMostLines] = {};
  for (std::size_t first = 0; first < task.groups; first += kRun) {
    const std::size_t count = task.groups - first < kRun ? task.groups - first : kRun;
    for (std::size_t c = 0; c < task.lines; ++c) {
      Sums sums = panel[c];
      const std::uint8_t* line = task.panel + first * task.step + c * kPanelBytes;
      const std::int8_t* inputs = activations + first * kGroup;
      for (std::size_t g = 0; g < count; ++g, line += task.step, inputs += kGroup) {
        _mm_prefetch(reinterpret_cast<const char*>(line) + kFarAhead, _MM_HINT_T1);
        _mm_prefetch(reinterpret_cast<const char*>(line) + kNearAhead, _MM_HINT_T0);
        const __m256i bytes[kHalves] = {load(line), load(line + 32)};
#pragma GCC unroll 4
        for (std::size_t i = 0; i < kCodes; ++i) {
          const __m256i input = broadcast(inputs + 4 * i);
#pragma GCC unroll 2
          for (std::size_t h = 0; h < kHalves; ++h) {
            add(sums.scaled[h][i], _mm256_and_si256(bytes[h], masks[i]), input);
          }
        }
      }
      panel[c] = sums;
    }
  }
  for (std::size_t c = 0; c < task.lines; ++c) {
    for (std::size_t h = 0; h < kHalves; ++h) {
      const __m256i(&scaled)[kCodes] = panel[c].scaled[h];
      const __m256i low = _mm256_add_epi32(scaled[0], _mm256_srai_epi32(scaled[1], 2));
      const __m256i high =
          _mm256_add_epi32(_mm256_srai_epi32(scaled[2], 4), _mm256_srai_epi32(scaled[3], 6));
      store(task.to, 0, kHalves * c + h, _mm256_add_epi32(low, high), task.from->sums[task.row]);
    }
  }
}

// kRows rows times kRegisters registers of a panel's lines, from register `at` on. Codes are
// brought to the low bits once for all rows.
template <std::size_t kRows, std::size_t kRegisters>
__attribute__((noinline)) void some_rows(const Task& task, std::size_t at) {
  const std::size_t stride = task.from->stride;
  const std::uint8_t* line = task.panel + at * sizeof(__m256i);
  const std::int8_t* inputs = task.from->values + task.row * stride;
  const __m256i low_bits = _mm256_set1_epi8(3);
  __m256i sums[kRows][kRegisters];
#pragma GCC unroll 5
  for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (std::size_t r = 0; r < kRegisters; ++r) sums[m][r] = _mm256_setzero_si256();
  }
  for (std::size_t g = 0; g < task.groups; ++g, line += task.step, inputs += kGroup) {
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
          for (std::size_t m = 0; m < kRows; ++m) add(sums[m][r], codes, input[m]);
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
          for (std::size_t r = 0; r < kRegisters; ++r) add(sums[m][r], codes[r], input);
        }
      }
    }
  }
#pragma GCC unroll 5
  for (std::size_t m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (std::size_t r = 0; r < kRegisters; ++r) {
      store(task.to, m, at + r, sums[m][r], task.from->sums[task.row + m]);
    }
  }
}

// Two rows take two lines at once, or their sums would be too few to keep the multipliers busy.
template <std::size_t kRows>
void panel_product(const Task& task) {
  const std::size_t registers = task.lines * kHalves;
  std::size_t at = 0;
  if constexpr (kRows == 2) {
    for (; at + 2 * kHalves <= registers; at += 2 * kHalves)
      some_rows<kRows, 2 * kHalves>(task, at);
  }
  for (; at < registers; at += kHalves) some_rows<kRows, kHalves>(task, at);
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
      default:
        return panel_product<5>(task);
    }
  });
}

}  // namespace tfmbs::kernels::avxvnni
