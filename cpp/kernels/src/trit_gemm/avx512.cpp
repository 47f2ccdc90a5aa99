// 512 products: two ANDs (one of them a ternary-logic instruction that takes the XOR of the signs
// with it), two population counts, two additions.
#include <immintrin.h>

#include "operations.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr std::size_t kGroup = 4;   // outputs whose counts stay in registers
constexpr std::size_t kPanel = 16;  // outputs reduced together: one register of int32
constexpr int kAndXor = 0x60;       // ternary logic a & (b ^ c)

// kRows rows times four outputs. dots[r][i] holds outputs 2i and 2i + 1, in the even and the odd
// int32 lanes, still to be summed over the eight 64-bit lanes. A 64-bit lane counts at most 2^24 /
// 8 products, so its low half is the count.
template <std::size_t kRows>
inline __attribute__((always_inline)) void dot_group(
    const std::uint64_t* const (&activations)[kRows], const std::uint64_t* const (&weights)[kGroup],
    std::size_t words, __m512i (&dots)[kRows][kGroup / 2]) {
  __m512i count[kRows][kGroup];
  __m512i minus[kRows][kGroup];
  for (std::size_t r = 0; r < kRows; ++r) {
    for (std::size_t n = 0; n < kGroup; ++n) count[r][n] = minus[r][n] = _mm512_setzero_si512();
  }
  for (std::size_t w = 0; w < words; w += kBlockWords) {
    __m512i nonzero[kRows];
    __m512i negative[kRows];
    for (std::size_t r = 0; r < kRows; ++r) {
      nonzero[r] = _mm512_loadu_si512(activations[r] + w);
      negative[r] = _mm512_loadu_si512(activations[r] + w + kPlaneWords);
    }
    for (std::size_t n = 0; n < kGroup; ++n) {
      const __m512i weight_nonzero = _mm512_loadu_si512(weights[n] + w);
      const __m512i weight_negative = _mm512_loadu_si512(weights[n] + w + kPlaneWords);
      for (std::size_t r = 0; r < kRows; ++r) {
        const __m512i product = _mm512_and_si512(nonzero[r], weight_nonzero);
        const __m512i sign =
            _mm512_ternarylogic_epi64(product, negative[r], weight_negative, kAndXor);
        count[r][n] = _mm512_add_epi64(count[r][n], _mm512_popcnt_epi64(product));
        minus[r][n] = _mm512_add_epi64(minus[r][n], _mm512_popcnt_epi64(sign));
      }
    }
  }
  for (std::size_t r = 0; r < kRows; ++r) {
    for (std::size_t n = 0; n < kGroup; ++n) {
      count[r][n] = _mm512_sub_epi64(count[r][n], _mm512_slli_epi64(minus[r][n], 1));
    }
    for (std::size_t i = 0; i < kGroup / 2; ++i) {
      dots[r][i] =
          _mm512_mask_shuffle_epi32(count[r][2 * i], 0xAAAA, count[r][2 * i + 1], _MM_PERM_CCAA);
    }
  }
}

inline __m512i add_halves(__m512i a, __m512i b) {
  return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}
inline __m512i add_lanes(__m512i a, __m512i b) {
  return _mm512_add_epi32(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xDD));
}

// Transposes while it adds: 64-bit lane i of the result is the sum of the lanes of v[i].
inline __m512i reduce_panel(const __m512i (&v)[kPanel / 2]) {
  const __m512i low = add_lanes(add_halves(v[0], v[1]), add_halves(v[2], v[3]));
  const __m512i high = add_lanes(add_halves(v[4], v[5]), add_halves(v[6], v[7]));
  return add_lanes(low, high);
}

template <std::size_t kRows>
inline __attribute__((always_inline)) void panel_rows(const TritGemmArgs& args, std::size_t row,
                                                      std::size_t output, std::size_t outputs) {
  const std::size_t words = args.blocks * kBlockWords;
  const std::uint64_t* activations[kRows];
  for (std::size_t r = 0; r < kRows; ++r) activations[r] = args.activations + (row + r) * words;

  __m512i sums[kRows][kPanel / 2];
  for (std::size_t g = 0; g < kPanel / kGroup; ++g) {
    __m512i dots[kRows][kGroup / 2];
    if (g * kGroup < outputs) {
      const std::uint64_t* weights[kGroup];
      for (std::size_t n = 0; n < kGroup; ++n) {
        // An output beyond the last repeats it; its sum is not stored.
        const std::size_t wanted = g * kGroup + n;
        weights[n] = args.weights + (output + (wanted < outputs ? wanted : outputs - 1)) * words;
      }
      dot_group<kRows>(activations, weights, words, dots);
    } else {
      for (std::size_t r = 0; r < kRows; ++r) dots[r][0] = dots[r][1] = _mm512_setzero_si512();
    }
    for (std::size_t r = 0; r < kRows; ++r) {
      sums[r][2 * g] = dots[r][0];
      sums[r][2 * g + 1] = dots[r][1];
    }
  }

  const auto mask = static_cast<__mmask16>((1U << outputs) - 1);
  for (std::size_t r = 0; r < kRows; ++r) {
    std::int32_t* out = args.out + (row + r) * args.out_stride + output;
    __m512i sum = reduce_panel(sums[r]);
    if (args.triple) {
      const __m512i old = _mm512_maskz_loadu_epi32(mask, out);
      sum = _mm512_add_epi32(sum, _mm512_add_epi32(old, _mm512_slli_epi32(old, 1)));
    }
    _mm512_mask_storeu_epi32(out, mask, sum);
  }
}

}  // namespace

// A panel of weights (16 outputs) stays in the nearest cache while every row passes over it.
void trit_gemm(const TritGemmArgs& args) noexcept {
  for (std::size_t output = 0; output < args.outputs; output += kPanel) {
    const std::size_t outputs = args.outputs - output < kPanel ? args.outputs - output : kPanel;
    std::size_t row = 0;
    for (; row + 2 <= args.rows; row += 2) panel_rows<2>(args, row, output, outputs);
    if (row < args.rows) panel_rows<1>(args, row, output, outputs);
  }
}

}  // namespace tfmbs::kernels::avx512
