// A word of the plane is a mask register: a masked subtraction of -1 counts 64 columns in bytes.
#include <immintrin.h>

#include "operations.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr std::size_t kBatch = 255;  // rows that a byte can count

// kWords words of one block, for `rows` rows; `columns` of them are added to counts.
template <std::size_t kWords>
inline __attribute__((always_inline)) void count_words(const std::uint64_t* words, std::size_t rows,
                                                       std::size_t row_words, std::size_t columns,
                                                       std::uint32_t* counts) {
  const __m512i minus_one = _mm512_set1_epi8(-1);
  __m512i bytes[kWords];
  for (std::size_t i = 0; i < kWords; ++i) bytes[i] = _mm512_setzero_si512();
  for (std::size_t r = 0; r < rows; ++r, words += row_words) {
    for (std::size_t i = 0; i < kWords; ++i) {
      bytes[i] = _mm512_mask_sub_epi8(bytes[i], words[i], bytes[i], minus_one);
    }
  }
  for (std::size_t i = 0; i < kWords; ++i) {
    const __m128i quarters[4] = {
        _mm512_castsi512_si128(bytes[i]), _mm512_extracti32x4_epi32(bytes[i], 1),
        _mm512_extracti32x4_epi32(bytes[i], 2), _mm512_extracti32x4_epi32(bytes[i], 3)};
    for (std::size_t q = 0; q < 4; ++q) {
      const std::size_t k = 64 * i + 16 * q;
      if (k >= columns) return;
      const __m512i more = _mm512_cvtepu8_epi32(quarters[q]);
      if (columns - k >= 16) {
        _mm512_storeu_si512(counts + k, _mm512_add_epi32(_mm512_loadu_si512(counts + k), more));
      } else {
        const auto mask = static_cast<__mmask16>((1U << (columns - k)) - 1);
        const __m512i old = _mm512_maskz_loadu_epi32(mask, counts + k);
        _mm512_mask_storeu_epi32(counts + k, mask, _mm512_add_epi32(old, more));
      }
    }
  }
}

}  // namespace

void column_count(const ColumnCountArgs& args) noexcept {
  const std::size_t blocks = blocks_of(args.trits);
  const std::size_t row_words = blocks * kBlockWords;
  for (std::size_t first = 0; first < args.rows; first += kBatch) {
    const std::size_t rows = args.rows - first < kBatch ? args.rows - first : kBatch;
    for (std::size_t b = 0; b < blocks; ++b) {
      const std::uint64_t* words = args.activations + first * row_words + b * kBlockWords;
      const std::size_t columns = args.trits - b * kBlockTrits;
      std::uint32_t* counts = args.counts + b * kBlockTrits;
      if (columns <= 128) {
        count_words<2>(words, rows, row_words, columns, counts);
      } else {
        count_words<kPlaneWords>(words, rows, row_words, columns, counts);
      }
    }
  }
}

}  // namespace tfmbs::kernels::avx512
