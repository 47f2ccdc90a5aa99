// y = x W^T + b with ternary weights: the whole layer, without a device.
#pragma once

#include <cstddef>

#include "tfmbs/execution/executor.hpp"
#include "tfmbs/kernels/kernels.hpp"
#include "tfmbs/linear/activation.hpp"
#include "tfmbs/linear/linear_args.hpp"
#include "tfmbs/linear/packed_weights.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::linear {

// Quantizes the input, multiplies, and applies scales, bias and ReLU. Throws std::bad_alloc; the
// output is unspecified then. Preconditions: the weights are packed for `activation`
// (packing_policy.hpp); input and output are of the weights' shape.
void linear(const PackedWeights& weights, Activation activation, const LinearArgs& args,
            const execution::Executor& executor = execution::process_executor());

}  // namespace tfmbs::linear

#pragma GCC visibility pop
