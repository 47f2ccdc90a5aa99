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

// Scales of weights, without the weights.
struct OutputScales {
  std::size_t outputs;
  std::span<const double> scales{};  // empty: 1; one value: for all outputs; else one each
  std::span<const std::uint8_t> nan_outputs{};  // 1 where an output is NaN; empty: none is
  GroupScalesView groups{};                     // null values: there are none
};

// The epilogue alone, of the added sums of processes that share a layer, scale groups x samples x
// outputs. `args` has no input but its type. Throws std::bad_alloc.
void apply_scales(std::span<const std::int32_t> sums, const OutputScales& weights,
                  const SampleScales& samples, const LinearArgs& args);

// The epilogue alone, of sums that a device computed, scale groups x samples x outputs. Throws
// std::bad_alloc.
void apply_epilogue(std::span<const std::int32_t> sums, const ActivationQuantizer& input,
                    const PackedWeights& weights, const LinearArgs& args);

// The output of a layer without input features: the bias. Throws std::bad_alloc.
void bias_alone(const PackedWeights& weights, const LinearArgs& args);

}  // namespace tfmbs::linear

#pragma GCC visibility pop
