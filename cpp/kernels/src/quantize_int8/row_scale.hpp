// The scale of a row of int8, in the arithmetic of its type.
#pragma once

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

}  // namespace
}  // namespace tfmbs::kernels
