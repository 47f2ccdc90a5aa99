// Fields of 15 bits become 16-bit lanes: one byte permutation and one multi-shift take 32 fields,
// 480 bits, from two neighbouring blocks. A compare then finds the fields that are not zero.
#include <immintrin.h>

#include "operations.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr std::size_t kFieldTrits = 15;
constexpr std::size_t kFields = 32;  // a window
constexpr std::size_t kWindowBytes = kFields * kFieldTrits / 8;
constexpr std::size_t kBlockBytes = kBlockTrits / 8;

struct Constants {
  alignas(64) std::uint8_t bytes[64];   // 64-bit lane j: the eight bytes from bit 60 j on
  alignas(64) std::uint8_t shifts[64];  // where each byte of its four fields begins in them

  constexpr Constants() : bytes{}, shifts{} {
    for (std::size_t j = 0; j < 8; ++j) {
      for (std::size_t i = 0; i < 8; ++i) {
        bytes[8 * j + i] = static_cast<std::uint8_t>(60 * j / 8 + i);
        shifts[8 * j + i] = static_cast<std::uint8_t>(60 * j % 8 + 15 * (i / 2) + 8 * (i % 2));
      }
    }
  }
};
constexpr Constants kConstants;

struct Source {
  const std::uint64_t* row;
  const std::uint64_t* occupancy;
  std::size_t blocks;

  __m512i block(std::size_t b) const {
    if (b >= blocks) return _mm512_setzero_si512();
    const __m512i nonzero = _mm512_loadu_si512(row + b * kBlockWords);
    if (occupancy == nullptr) return nonzero;
    return _mm512_and_si512(nonzero, _mm512_loadu_si512(occupancy + b * kPlaneWords));
  }
};

}  // namespace

void field_count(const FieldCountArgs& args) noexcept {
  const __m512i byte_indices = _mm512_load_si512(kConstants.bytes);
  const __m512i shifts = _mm512_load_si512(kConstants.shifts);
  Source source{args.activations, args.occupancy, blocks_of(args.trits)};
  const std::size_t chunk_fields = (args.chunk_depth + kFieldTrits - 1) / kFieldTrits;
  const std::size_t row_fields = (args.trits + kFieldTrits - 1) / kFieldTrits;
  std::size_t slot = 0;
  for (std::size_t r = 0; r < args.rows; ++r) {
    for (std::size_t begin = 0; begin < row_fields; begin += chunk_fields, ++slot) {
      const std::size_t end = row_fields - begin < chunk_fields ? row_fields : begin + chunk_fields;
      __m512i set_bits = _mm512_setzero_si512();
      std::size_t set_fields = 0;
      for (std::size_t window = begin / kFields; window * kFields < end; ++window) {
        const std::size_t first = window * kFields;
        std::uint32_t inside = ~std::uint32_t{0};
        if (first < begin) inside <<= begin - first;
        if (end - first < kFields) inside &= (std::uint32_t{1} << (end - first)) - 1;

        const std::size_t byte = window * kWindowBytes;
        const std::size_t b = byte / kBlockBytes;
        const __m512i indices =
            _mm512_add_epi8(byte_indices, _mm512_set1_epi8(static_cast<char>(byte % kBlockBytes)));
        const __m512i bytes =
            _mm512_permutex2var_epi8(source.block(b), indices, source.block(b + 1));
        const __m512i fields = _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts, bytes),
                                                _mm512_maskz_set1_epi16(inside, 0x7FFF));
        set_fields +=
            static_cast<std::size_t>(__builtin_popcount(_mm512_test_epi16_mask(fields, fields)));
        set_bits = _mm512_add_epi64(set_bits, _mm512_popcnt_epi64(fields));
      }
      const auto steps = static_cast<std::size_t>(_mm512_reduce_add_epi64(set_bits));
      args.steps[slot] = static_cast<std::uint32_t>(steps);
      args.cycles[slot] = static_cast<std::uint32_t>(steps + (end - begin) - set_fields);
    }
    source.row += source.blocks * kBlockWords;
  }
}

}  // namespace tfmbs::kernels::avx512
