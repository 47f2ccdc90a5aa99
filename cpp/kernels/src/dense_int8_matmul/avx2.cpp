// vpmaddubsw takes one factor without a sign: |w| and x with w's sign. Two products of at most
// 127 * 127 fit its 16 bits.
#include <immintrin.h>

#include <cstring>

#include "operations.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

constexpr std::size_t kStep = 32;

inline __m256i load(const std::int8_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}

// The first `count` < kStep values; the others are 0.
inline __m256i load_rest(const std::int8_t* from, std::size_t count) {
  std::int8_t whole[kStep] = {};
  std::memcpy(whole, from, count);
  return load(whole);
}

inline __m256i add_products(__m256i sums, __m256i magnitudes, __m256i weights, __m256i x) {
  const __m256i pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(x, weights));
  return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

inline std::int32_t sum_of(__m256i sums) {
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1));
  return _mm_cvtsi128_si32(four);
}

// kRows rows of activations and two of weights, which are read once for all.
template <std::size_t kRows, std::size_t kOutputs>
inline void multiply(const DenseInt8MatmulArgs& args, std::size_t m, std::size_t n) {
  __m256i sums[kRows][kOutputs];
  for (auto& row : sums) {
    for (__m256i& sum : row) sum = _mm256_setzero_si256();
  }
  const std::int8_t* weights = args.weights + n * args.weight_stride;
  const std::int8_t* rows = args.activations + m * args.row_stride;
  const std::size_t whole = args.depth / kStep * kStep;
  for (std::size_t k = 0; k < whole; k += kStep) {
    for (std::size_t j = 0; j < kOutputs; ++j) {
      const __m256i w = load(weights + j * args.weight_stride + k);
      const __m256i magnitudes = _mm256_abs_epi8(w);
      for (std::size_t i = 0; i < kRows; ++i) {
        sums[i][j] = add_products(sums[i][j], magnitudes, w, load(rows + i * args.row_stride + k));
      }
    }
  }
  if (const std::size_t rest = args.depth - whole; rest != 0) {
    for (std::size_t j = 0; j < kOutputs; ++j) {
      const __m256i w = load_rest(weights + j * args.weight_stride + whole, rest);
      const __m256i magnitudes = _mm256_abs_epi8(w);
      for (std::size_t i = 0; i < kRows; ++i) {
        sums[i][j] = add_products(sums[i][j], magnitudes, w,
                                  load_rest(rows + i * args.row_stride + whole, rest));
      }
    }
  }
  for (std::size_t i = 0; i < kRows; ++i) {
    for (std::size_t j = 0; j < kOutputs; ++j) {
      args.out[(m + i) * args.out_stride + n + j] = sum_of(sums[i][j]);
    }
  }
}

template <std::size_t kRows>
inline void multiply_rows(const DenseInt8MatmulArgs& args, std::size_t m) {
  std::size_t n = 0;
  for (; n + 2 <= args.outputs; n += 2) multiply<kRows, 2>(args, m, n);
  if (n < args.outputs) multiply<kRows, 1>(args, m, n);
}

}  // namespace

void dense_int8_matmul(const DenseInt8MatmulArgs& args) noexcept {
  std::size_t m = 0;
  for (; m + 4 <= args.rows; m += 4) multiply_rows<4>(args, m);
  for (; m < args.rows; ++m) multiply_rows<1>(args, m);
}

}  // namespace tfmbs::kernels::avx2
