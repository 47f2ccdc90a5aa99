// cnt counts the bits of bytes; bytes are added up as long as they can hold the sums.
#include <arm_neon.h>

#include "operations.hpp"

namespace tfmbs::kernels::neon {
namespace {

constexpr std::size_t kGroup = 4;          // outputs that share a load of the activations
constexpr std::size_t kRegisterWords = 2;  // 64-bit words
// A byte counts at most 8 a register, four registers a block: 7 blocks reach 224 of 255.
constexpr std::size_t kRunBlocks = 7;
static_assert(kRunBlocks * (kPlaneWords / kRegisterWords) * 8 <= 0xFF);

inline uint8x16_t load(const std::uint64_t* words) {
  return vreinterpretq_u8_u64(vld1q_u64(words));
}

inline uint32x4_t widen(uint32x4_t sum, uint8x16_t bytes) {
  return vpadalq_u16(sum, vpaddlq_u8(bytes));
}

// Products that are not zero count one each, and the negative ones among them minus two. Fits in 32
// bits: kMaxDepth is 2^24. Lane n is the dot product with output n.
inline int32x4_t dot_group(const std::uint64_t* activation,
                           const std::uint64_t* const (&weights)[kGroup], std::size_t blocks) {
  uint32x4_t nonzero[kGroup];
  uint32x4_t negative[kGroup];
  for (std::size_t n = 0; n < kGroup; ++n) nonzero[n] = negative[n] = vdupq_n_u32(0);
  for (std::size_t first = 0; first < blocks; first += kRunBlocks) {
    const std::size_t end = blocks - first < kRunBlocks ? blocks : first + kRunBlocks;
    uint8x16_t products[kGroup];
    uint8x16_t minuses[kGroup];
#pragma GCC unroll 4
    for (std::size_t n = 0; n < kGroup; ++n) products[n] = minuses[n] = vdupq_n_u8(0);
    for (std::size_t b = first; b < end; ++b) {
      for (std::size_t i = 0; i < kPlaneWords; i += kRegisterWords) {
        const std::size_t w = b * kBlockWords + i;
        const uint8x16_t a = load(activation + w);
        const uint8x16_t signs = load(activation + w + kPlaneWords);
#pragma GCC unroll 4
        for (std::size_t n = 0; n < kGroup; ++n) {
          const uint8x16_t product = vandq_u8(a, load(weights[n] + w));
          const uint8x16_t minus =
              vandq_u8(product, veorq_u8(signs, load(weights[n] + w + kPlaneWords)));
          products[n] = vaddq_u8(products[n], vcntq_u8(product));
          minuses[n] = vaddq_u8(minuses[n], vcntq_u8(minus));
        }
      }
    }
#pragma GCC unroll 4
    for (std::size_t n = 0; n < kGroup; ++n) {
      nonzero[n] = widen(nonzero[n], products[n]);
      negative[n] = widen(negative[n], minuses[n]);
    }
  }
  const auto sum_lanes = [](const uint32x4_t(&v)[kGroup]) {
    return vreinterpretq_s32_u32(vpaddq_u32(vpaddq_u32(v[0], v[1]), vpaddq_u32(v[2], v[3])));
  };
  return vmlsq_n_s32(sum_lanes(nonzero), sum_lanes(negative), 2);
}

}  // namespace

// A group of weights stays in the nearest cache while every row passes over it.
void trit_gemm(const TritGemmArgs& args) noexcept {
  const std::size_t words = args.blocks * kBlockWords;
  for (std::size_t output = 0; output < args.outputs; output += kGroup) {
    const std::size_t outputs = args.outputs - output < kGroup ? args.outputs - output : kGroup;
    const std::uint64_t* weights[kGroup];
    for (std::size_t n = 0; n < kGroup; ++n) {
      // An output beyond the last repeats it; its sum is not stored.
      weights[n] = args.weights + (output + (n < outputs ? n : outputs - 1)) * words;
    }
    for (std::size_t m = 0; m < args.rows; ++m) {
      std::int32_t sums[kGroup];
      vst1q_s32(sums, dot_group(args.activations + m * words, weights, args.blocks));
      std::int32_t* out = args.out + m * args.out_stride + output;
      for (std::size_t n = 0; n < outputs; ++n)
        out[n] = args.triple ? 3 * out[n] + sums[n] : sums[n];
    }
  }
}

}  // namespace tfmbs::kernels::neon
