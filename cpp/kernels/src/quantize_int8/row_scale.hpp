// The scale of a row of int8, in the arithmetic of its type.
#pragma once

#include "scalar.hpp"

namespace tfmbs::kernels {
namespace {

// Values of Real, float or double.
struct RowScale {
  double inverse;  // what the row is multiplied by
  double scale;    // what one unit of its int8 stands for
};

// largest: the row's greatest magnitude, finite.
template <typename Real>
RowScale row_scale(Real largest) {
  const Real floor = static_cast<Real>(1e-5);
  const Real top = largest > floor ? largest : floor;
  return {static_cast<double>(static_cast<Real>(127) / top),
          static_cast<double>(top / static_cast<Real>(127))};
}

// The greater of a row's greatest magnitude and a given one (QuantizeInt8Args::magnitudes), as the
// bits of an fp32 (of an fp64 for fp64): integers, so that a NaN wins.
template <FloatType kType>
std::uint64_t with_given(std::uint64_t largest, const double* magnitudes, std::size_t row) {
  if (magnitudes == nullptr) return largest;
  std::uint64_t given = 0;
  if constexpr (kType == FloatType::kFloat64) {
    given = double_bits(magnitudes[row]) & ~kFloat64Format.sign;
  } else {
    given = float_bits(static_cast<float>(magnitudes[row])) & ~kFloat32Format.sign;
  }
  return given > largest ? given : largest;
}

}  // namespace
}  // namespace tfmbs::kernels
