#include "operations.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::portable {
namespace {

// Eight bits spread over the eight bytes of a word, bit i to byte i (by value, not by address).
struct SpreadTable {
  std::uint64_t words[256];
  constexpr SpreadTable() : words{} {
    for (std::uint64_t byte = 0; byte < 256; ++byte) {
      for (std::uint64_t i = 0; i < 8; ++i) words[byte] |= (byte >> i & 1) << (8 * i);
    }
  }
};
constexpr SpreadTable kSpread;

constexpr std::size_t kBatch = 255;  // rows that a byte can count

}  // namespace

void column_count(const ColumnCountArgs& args) noexcept {
  const std::size_t row_words = blocks_of(args.trits) * kBlockWords;
  for (std::size_t first = 0; first < args.rows; first += kBatch) {
    const std::size_t rows = args.rows - first < kBatch ? args.rows - first : kBatch;
    for (std::size_t k = 0; k < args.trits; k += 64) {
      const std::uint64_t* word = args.activations + first * row_words + bit_plane_word(k);
      std::uint64_t bytes[8] = {};
      for (std::size_t r = 0; r < rows; ++r, word += row_words) {
        for (std::size_t i = 0; i < 8; ++i) bytes[i] += kSpread.words[*word >> (8 * i) & 0xFF];
      }
      const std::size_t count = args.trits - k < 64 ? args.trits - k : 64;
      for (std::size_t i = 0; i < count; ++i) {
        args.counts[k + i] += static_cast<std::uint32_t>(bytes[i / 8] >> (8 * (i % 8)) & 0xFF);
      }
    }
  }
}

}  // namespace tfmbs::kernels::portable
