// Grouped products made of the plain ones: a product for each group of inputs, its int32 sums
// scaled and added in a loop. Slow, and right for every layout that takes group scales: what a set
// does where it has nothing better, and in fp64.
#pragma once

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::kernels::composed {

using TritMatmul = void (*)(const TritMatmulArgs&) noexcept;
using Int8Matmul = void (*)(const Int8MatmulArgs&) noexcept;

void grouped_trit_matmul(const GroupedTritMatmulArgs& args, TritMatmul product) noexcept;
void grouped_int8_matmul(const GroupedInt8MatmulArgs& args, Int8Matmul product) noexcept;

}  // namespace tfmbs::kernels::composed
