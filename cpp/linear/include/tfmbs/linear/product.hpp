// The product and epilogue of a forward pass: sums of products, scaled, to the output.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tfmbs/execution/executor.hpp"
#include "tfmbs/linear/activation_quantizer.hpp"
#include "tfmbs/linear/linear_args.hpp"
#include "tfmbs/linear/packed_weights.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::linear {

// Products and epilogue of the whole output, of what `input` quantized. Throws std::bad_alloc.
void multiply(const ActivationQuantizer& input, const PackedWeights& weights,
              const LinearArgs& args, const execution::Executor& executor);

// Scale groups of weights: one where they have no group scales.
[[nodiscard]] std::size_t scale_groups(const PackedWeights& weights) noexcept;

// The exact sums alone, scale groups x samples x outputs: for a device that checks its own against
// them. With group scales it is a plain loop. Throws std::bad_alloc.
void multiply_sums(const ActivationQuantizer& input, const PackedWeights& weights,
                   std::span<std::int32_t> sums);

// The exact sums of rows of int8 that the caller quantized, -127...127: samples x outputs. Throws
// std::bad_alloc. Preconditions: the weights are packed for kInt8 and have no group scales.
void multiply_values(const std::int8_t* values, std::size_t samples, const PackedWeights& weights,
                     std::int32_t* sums, const execution::Executor& executor);

// The epilogue alone, of sums that a device computed, scale groups x samples x outputs. Throws
// std::bad_alloc.
void apply_epilogue(std::span<const std::int32_t> sums, const ActivationQuantizer& input,
                    const PackedWeights& weights, const LinearArgs& args);

// The output of a layer without input features: the bias. Throws std::bad_alloc.
void bias_alone(const PackedWeights& weights, const LinearArgs& args);

}  // namespace tfmbs::linear

#pragma GCC visibility pop
