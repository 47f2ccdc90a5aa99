// 512 products: two ANDs (one of them a ternary-logic instruction that takes the XOR of the signs
// with it), two population counts, two additions.
#include <immintrin.h>

#include "operations.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr std::size_t kGroup = 4;   // outputs whose counts stay in registers
constexpr std::size_t kPanel = 16;  // outputs reduced together: one register of int32
constexpr int kAndXor = 0x60;       // ternary logic a & (b ^ c)

struct Counts {
  __m512i nonzero;
  __m512i negative;
};

// The counts of one block, in eight lanes of at most 64.
inline __attribute__((always_inline)) Counts count_block(__m512i nonzero, __m512i negative,
                                                         const std::uint64_t* weight) {
  const __m512i product = _mm512_and_si512(nonzero, _mm512_loadu_si512(weight));
  const __m512i minus = _mm512_ternarylogic_epi64(
      product, negative, _mm512_loadu_si512(weight + kPlaneWords), kAndXor);
  return {_mm512_popcnt_epi64(product), _mm512_popcnt_epi64(minus)};
}

// One row times four outputs; more rows at once would save loads that are not the limit, and were
// slower. dots[i] holds outputs 2i and 2i + 1, in the even and the odd int32 lanes, still to be
// summed over the eight 64-bit lanes. A 64-bit lane counts at most 2^24 / 8 products, so its low
// half is the count.
inline __attribute__((always_inline)) void dot_group(const std::uint64_t* activation,
                                                     const std::uint64_t* const (&weights)[kGroup],
                                                     std::size_t words,
                                                     __m512i (&dots)[kGroup / 2]) {
  Counts counts[kGroup];
  {  // The first block begins the sums: with one or two blocks, clearing them first would show.
    const __m512i nonzero = _mm512_loadu_si512(activation);
    const __m512i negative = _mm512_loadu_si512(activation + kPlaneWords);
    for (std::size_t n = 0; n < kGroup; ++n) {
      counts[n] = count_block(nonzero, negative, weights[n]);
    }
  }
  for (std::size_t w = kBlockWords; w < words; w += kBlockWords) {
    const __m512i nonzero = _mm512_loadu_si512(activation + w);
    const __m512i negative = _mm512_loadu_si512(activation + w + kPlaneWords);
    for (std::size_t n = 0; n < kGroup; ++n) {
      const Counts block = count_block(nonzero, negative, weights[n] + w);
      counts[n].nonzero = _mm512_add_epi64(counts[n].nonzero, block.nonzero);
      counts[n].negative = _mm512_add_epi64(counts[n].negative, block.negative);
    }
  }
  __m512i sums[kGroup];
  for (std::size_t n = 0; n < kGroup; ++n) {
    sums[n] = _mm512_sub_epi64(counts[n].nonzero, _mm512_slli_epi64(counts[n].negative, 1));
  }
  for (std::size_t i = 0; i < kGroup / 2; ++i) {
    dots[i] = _mm512_mask_shuffle_epi32(sums[2 * i], 0xAAAA, sums[2 * i + 1], _MM_PERM_CCAA);
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

// The dot products of a row with a panel of weights, one an int32 lane. A last panel may be cut
// short; its other lanes are zero.
inline __attribute__((always_inline)) __m512i dot_panel(const std::uint64_t* activation,
                                                        const std::uint64_t* weights,
                                                        std::size_t outputs, std::size_t words) {
  __m512i dots[kPanel / 2];
  for (std::size_t g = 0; g < kPanel / kGroup; ++g) {
    __m512i group[kGroup / 2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    if (g * kGroup < outputs) {
      const std::uint64_t* rows[kGroup];
      for (std::size_t n = 0; n < kGroup; ++n) {
        // An output beyond the last repeats it; its sum is not stored.
        const std::size_t wanted = g * kGroup + n;
        rows[n] = weights + (wanted < outputs ? wanted : outputs - 1) * words;
      }
      dot_group(activation, rows, words, group);
    }
    dots[2 * g] = group[0];
    dots[2 * g + 1] = group[1];
  }
  return reduce_panel(dots);
}

inline void store(const TritGemmArgs& args, std::int32_t* out, __mmask16 mask, __m512i sums) {
  if (args.triple) {
    const __m512i old = _mm512_maskz_loadu_epi32(mask, out);
    sums = _mm512_add_epi32(sums, _mm512_add_epi32(old, _mm512_slli_epi32(old, 1)));
  }
  _mm512_mask_storeu_epi32(out, mask, sums);
}

}  // namespace

// A panel of weights (16 outputs) stays in the nearest cache while every row passes over it.
void trit_gemm(const TritGemmArgs& args) noexcept {
  const std::size_t words = args.blocks * kBlockWords;
  for (std::size_t output = 0; output < args.outputs; output += kPanel) {
    const std::size_t left = args.outputs - output;
    const std::uint64_t* weights = args.weights + output * words;
    const std::uint64_t* activation = args.activations;
    std::int32_t* out = args.out + output;
    for (std::size_t m = 0; m < args.rows; ++m, activation += words, out += args.out_stride) {
      if (args.blocks == 0) {
        store(args, out, static_cast<__mmask16>(left < kPanel ? (1U << left) - 1 : 0xFFFFU),
              _mm512_setzero_si512());
      } else if (left >= kPanel) {
        store(args, out, 0xFFFF, dot_panel(activation, weights, kPanel, words));
      } else {
        store(args, out, static_cast<__mmask16>((1U << left) - 1),
              dot_panel(activation, weights, left, words));
      }
    }
  }
}

}  // namespace tfmbs::kernels::avx512
