// How ARM's sets stage the rows of a grouped product, and where sums go. Everything is in an
// anonymous namespace (docs/kernels.md, "One definition").
#pragma once

#include <arm_neon.h>

#include "grouped_int8_matmul/quads.hpp"
#include "grouped_neon.hpp"
#include "int8_matmul/neon_quads.hpp"

namespace tfmbs::kernels {
namespace {

// What the codes t + 1 of a group add to the sum of its trits: minus the sum of its activations.
inline void stage_groups(const GroupedInt8MatmulArgs& args, std::size_t row, std::size_t rows,
                         std::size_t first, std::size_t depths, GroupedActivations& to) {
  const std::size_t group = args.scales.group;
  for (std::size_t m = 0; m < rows; ++m) {
    const std::int8_t* from = args.activations + (row + m) * args.row_stride + first;
    std::int8_t* values = to.values + m * to.stride;
    std::int32_t* sums = to.sums + m * to.groups;
    if (depths > 0) __builtin_memcpy(values, from, depths);
    for (std::size_t k = depths; k < to.stride; ++k) values[k] = 0;
    for (std::size_t begin = 0; begin < to.stride; begin += group) {
      const std::size_t end = to.stride - begin < group ? to.stride : begin + group;
      int32x4_t sum = vdupq_n_s32(0);
      for (std::size_t k = begin; k < end; k += kUnit) {
        sum = vpadalq_s16(sum, vpaddlq_s8(vld1q_s8(values + k)));
      }
      *sums++ = -vaddvq_s32(sum);
    }
  }
}

}  // namespace
}  // namespace tfmbs::kernels
