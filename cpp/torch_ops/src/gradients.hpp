// The gradient of an input, for the ops of every form of weights.
#pragma once

#include <optional>

#include "tensors.hpp"
#include "tfmbs/linear/gradients.hpp"

namespace tfmbs::torch_ops {

// grad: [..., outputs], fp32 or fp64. kept: kept_activation's with a window, with values or
// without; none: there is no window. The result is [..., depth] of `dtype`.
[[nodiscard]] Tensor input_gradient_of(const Tensor& grad, const linear::TernaryWeights& weight,
                                       const std::optional<Tensor>& kept, const Text& activation,
                                       bool values, ScalarType dtype);

}  // namespace tfmbs::torch_ops
