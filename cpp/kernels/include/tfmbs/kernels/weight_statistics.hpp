// What weight quantizers measure of a row of weights, in fp64 and in one fixed order, so that a
// quantized network is the same on every machine. Portable code only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tfmbs/kernels/kernels.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::kernels {

struct AbsoluteSum {
  double sum{0.0};
  std::uint64_t count{0};  // elements that entered the sum
};

// Sum of |w| over the elements with |w| > threshold (threshold < 0: all), NaNs left out. Order:
// lane i of eight adds elements i, i + 8, ... in turn (fp64); then the lanes are added as
// ((0+4)+(2+6)) + ((1+5)+(3+7)).
[[nodiscard]] AbsoluteSum absolute_sum(const void* row, FloatType type, std::size_t columns,
                                       double threshold) noexcept;

}  // namespace tfmbs::kernels

#pragma GCC visibility pop
