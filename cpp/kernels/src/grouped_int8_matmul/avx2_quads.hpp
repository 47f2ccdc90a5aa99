// How x86's sets without AVX-512 stage the rows of a grouped product. For files that are built with
// AVX2, everything in an anonymous namespace (docs/kernels.md, "One definition").
#pragma once

#include <immintrin.h>

#include "grouped_avx2.hpp"
#include "grouped_int8_matmul/quads.hpp"
#include "int8_matmul/avx2_quads.hpp"

namespace tfmbs::kernels {
namespace {

// What the codes t + 1 of a group add to the sum of its trits, taken off beforehand: minus the sum
// of the group's activations. For dot products that add four depths, `kWords` = 1; for those that
// add two, 2: two words of 16 bits, minus the sums of the depths k with k % 4 < 2, and of the
// others.
template <std::size_t kWords>
inline void stage_groups(const GroupedInt8MatmulArgs& args, std::size_t row, std::size_t rows,
                         std::size_t first, std::size_t depths, GroupedActivations& to) {
  static_assert(kMostScaleGroup / 2 * 127 <= 0x7FFF);
  const __m128i ones = _mm_set1_epi8(1);
  const std::size_t group = args.scales.group;
  for (std::size_t m = 0; m < rows; ++m) {
    const std::int8_t* from = args.activations + (row + m) * args.row_stride + first;
    std::int8_t* values = to.values + m * to.stride;
    std::int32_t* sums = to.sums + m * to.groups;
    for (std::size_t begin = 0; begin < to.stride; begin += group) {
      const std::size_t end = to.stride - begin < group ? to.stride : begin + group;
      __m128i sum = _mm_setzero_si128();
      for (std::size_t k = begin; k < end; k += kUnit) {
        const __m128i bytes = load_values(from + k, depths, depths - k);
        _mm_store_si128(reinterpret_cast<__m128i*>(values + k), bytes);
        sum = _mm_sub_epi16(sum, _mm_maddubs_epi16(ones, bytes));
      }
      if constexpr (kWords == 1) {
        sum = _mm_madd_epi16(sum, _mm_set1_epi16(1));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
      } else {
        sum = _mm_add_epi16(sum, _mm_shuffle_epi32(sum, 0x4E));
        sum = _mm_add_epi16(sum, _mm_shuffle_epi32(sum, 0xB1));
      }
      *sums++ = _mm_cvtsi128_si32(sum);
    }
  }
}

}  // namespace
}  // namespace tfmbs::kernels
