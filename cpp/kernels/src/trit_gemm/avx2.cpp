// AVX2 has no population count: nibbles are looked up in two tables, +1 a product that is not zero
// and -2 a negative one, and summed in signed bytes.
#include <immintrin.h>

#include "operations.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

constexpr std::size_t kPanel = 8;      // outputs reduced together: one register of int32
constexpr std::size_t kGroup = 4;      // outputs that share a load of the activations
constexpr std::size_t kHalfWords = 4;  // 64-bit words a register
// A byte moves by at most 8 a register, two registers a block: 7 blocks reach 112 of int8's 127.
constexpr std::size_t kRunBlocks = 7;

inline __m256i load(const std::uint64_t* words) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
}

// sums[n]: eight int32 lanes, together the dot product with output n.
inline __attribute__((always_inline)) void dot_group(const std::uint64_t* activation,
                                                     const std::uint64_t* const (&weights)[kGroup],
                                                     std::size_t blocks, __m256i (&sums)[kGroup]) {
  const __m256i ones = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i minus_twos = _mm256_sub_epi8(_mm256_setzero_si256(), _mm256_add_epi8(ones, ones));
  const __m256i nibble = _mm256_set1_epi8(15);
  for (std::size_t n = 0; n < kGroup; ++n) sums[n] = _mm256_setzero_si256();
  for (std::size_t first = 0; first < blocks; first += kRunBlocks) {
    const std::size_t end = blocks - first < kRunBlocks ? blocks : first + kRunBlocks;
    __m256i bytes[kGroup];
    for (std::size_t n = 0; n < kGroup; ++n) bytes[n] = _mm256_setzero_si256();
    for (std::size_t half = 2 * first; half < 2 * end; ++half) {
      const std::size_t w = half / 2 * kBlockWords + half % 2 * kHalfWords;
      const __m256i nonzero = load(activation + w);
      const __m256i negative = load(activation + w + kPlaneWords);
      for (std::size_t n = 0; n < kGroup; ++n) {
        const __m256i product = _mm256_and_si256(nonzero, load(weights[n] + w));
        const __m256i signs = _mm256_xor_si256(negative, load(weights[n] + w + kPlaneWords));
        const __m256i minus = _mm256_and_si256(product, signs);
        const __m256i product_high = _mm256_and_si256(_mm256_srli_epi16(product, 4), nibble);
        const __m256i minus_high = _mm256_and_si256(_mm256_srli_epi16(minus, 4), nibble);
        const __m256i plus =
            _mm256_add_epi8(_mm256_shuffle_epi8(ones, _mm256_and_si256(product, nibble)),
                            _mm256_shuffle_epi8(ones, product_high));
        const __m256i less =
            _mm256_add_epi8(_mm256_shuffle_epi8(minus_twos, _mm256_and_si256(minus, nibble)),
                            _mm256_shuffle_epi8(minus_twos, minus_high));
        bytes[n] = _mm256_add_epi8(bytes[n], _mm256_add_epi8(plus, less));
      }
    }
    for (std::size_t n = 0; n < kGroup; ++n) {
      const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes[n]);
      sums[n] = _mm256_add_epi32(sums[n], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
  }
}

// Lane i of the result is the sum of the lanes of v[i].
inline __m256i reduce_panel(const __m256i (&v)[kPanel]) {
  const __m256i low =
      _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
  const __m256i high =
      _mm256_hadd_epi32(_mm256_hadd_epi32(v[4], v[5]), _mm256_hadd_epi32(v[6], v[7]));
  return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                          _mm256_permute2x128_si256(low, high, 0x31));
}

}  // namespace

// A panel of weights (8 outputs) stays in the nearest cache while every row passes over it.
void trit_gemm(const TritGemmArgs& args) noexcept {
  const std::size_t words = args.blocks * kBlockWords;
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (std::size_t output = 0; output < args.outputs; output += kPanel) {
    const std::size_t outputs = args.outputs - output < kPanel ? args.outputs - output : kPanel;
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(outputs)), lanes);
    const std::uint64_t* weights[2][kGroup];
    for (std::size_t n = 0; n < kPanel; ++n) {
      // An output beyond the last repeats it; its sum is not stored.
      weights[n / kGroup][n % kGroup] =
          args.weights + (output + (n < outputs ? n : outputs - 1)) * words;
    }
    for (std::size_t m = 0; m < args.rows; ++m) {
      const std::uint64_t* activation = args.activations + m * words;
      __m256i low[kGroup];
      __m256i high[kGroup];
      dot_group(activation, weights[0], args.blocks, low);
      if (outputs > kGroup) {
        dot_group(activation, weights[1], args.blocks, high);
      } else {
        for (__m256i& sum : high) sum = _mm256_setzero_si256();
      }
      __m256i sum =
          reduce_panel({low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]});
      std::int32_t* out = args.out + m * args.out_stride + output;
      if (args.triple) {
        const __m256i old = _mm256_maskload_epi32(out, mask);
        sum = _mm256_add_epi32(sum, _mm256_add_epi32(old, _mm256_add_epi32(old, old)));
      }
      _mm256_maskstore_epi32(out, mask, sum);
    }
  }
}

}  // namespace tfmbs::kernels::avx2
