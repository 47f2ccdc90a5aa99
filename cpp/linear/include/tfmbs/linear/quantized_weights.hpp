// A layer's weights, quantized: what is packed (packed_weights.hpp), and then goes.
#pragma once

#include <cstdint>
#include <vector>

#include "tfmbs/execution/executor.hpp"
#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/format/error.hpp"
#include "tfmbs/linear/weight_quantizer.hpp"
#include "tfmbs/linear/weight_sources.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::linear {

struct QuantizedWeights {
  BitPlaneMatrix planes;
  std::vector<double> scales;             // empty: 1; one value: for all outputs; else one each
  std::vector<std::uint8_t> nan_outputs;  // empty: none
  std::uint64_t zeros{0};

  // The share of zeros among all weights, not rounded; 0 for an empty matrix.
  [[nodiscard]] double sparsity() const noexcept;
};

// Zeros among the trits of a matrix.
[[nodiscard]] std::uint64_t count_zeros(BitPlaneView planes);

// What a quantizer takes from a mean of magnitudes (kernels::MagnitudeSum). kAbsmean: both from the
// mean of the whole weight. kTwn: the threshold from the mean of an output's weights, the scale
// from the mean of those above the threshold. The scale is an fp32 value unless the weights are
// fp64.
struct WeightRule {
  double threshold;
  double scale;
};
// Precondition: quantizer is kAbsmean or kTwn.
[[nodiscard]] WeightRule weight_rule(WeightQuantizer quantizer, double mean,
                                     kernels::FloatType type) noexcept;

// Formulas: docs/python-api.md, "Quantizers". Scales are fp32 values unless the weights are fp64.
// Preconditions: quantizer is not kCustom; depth <= kMaxDepth.
QuantizedWeights quantize_weights(const FloatWeights& source, WeightQuantizer quantizer,
                                  const execution::Executor& executor);
// Weights that are trits already. Errors: kInvalidArgument (a value that is no trit).
Result<QuantizedWeights> read_trits(const TritSource& source);
// A scale that is NaN makes its output NaN. Errors: kEncoding (a byte above 242, by its offset),
// kInvalidArgument (as many scales as neither 1 nor one an output, or a stream of another size).
Result<QuantizedWeights> read_stream(const StreamSource& source);

}  // namespace tfmbs::linear

#pragma GCC visibility pop
