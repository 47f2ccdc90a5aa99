// 32 bits become 32 bytes of 0 or -1 (a byte shuffle, and a compare with each byte's bit), which
// are subtracted from byte counters.
#include <immintrin.h>

#include "operations.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

constexpr std::size_t kBatch = 255;  // rows that a byte can count

inline __m256i spread(std::uint32_t bits) {
  const __m256i source =
      _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i select = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ULL));
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(bits)), source);
  return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, select), select);
}

}  // namespace

void column_count(const ColumnCountArgs& args) noexcept {
  const std::size_t row_words = blocks_of(args.trits) * kBlockWords;
  for (std::size_t first = 0; first < args.rows; first += kBatch) {
    const std::size_t rows = args.rows - first < kBatch ? args.rows - first : kBatch;
    for (std::size_t k = 0; k < args.trits; k += 64) {
      const std::uint64_t* word = args.activations + first * row_words + word_of(k);
      __m256i bytes[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
      for (std::size_t r = 0; r < rows; ++r, word += row_words) {
        bytes[0] = _mm256_sub_epi8(bytes[0], spread(static_cast<std::uint32_t>(*word)));
        bytes[1] = _mm256_sub_epi8(bytes[1], spread(static_cast<std::uint32_t>(*word >> 32)));
      }
      alignas(32) std::uint8_t flat[64];
      _mm256_store_si256(reinterpret_cast<__m256i*>(flat), bytes[0]);
      _mm256_store_si256(reinterpret_cast<__m256i*>(flat + 32), bytes[1]);
      const std::size_t count = args.trits - k < 64 ? args.trits - k : 64;
      for (std::size_t i = 0; i < count; ++i) args.counts[k + i] += flat[i];
    }
  }
}

}  // namespace tfmbs::kernels::avx2
