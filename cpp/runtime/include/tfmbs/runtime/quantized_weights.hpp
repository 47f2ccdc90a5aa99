// A layer's weights, quantized: what is packed (packed_weights.hpp), and then goes.
#pragma once

#include <cstdint>
#include <vector>

#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/runtime/executor.hpp"
#include "tfmbs/runtime/layer_spec.hpp"
#include "tfmbs/runtime/weight_source.hpp"

namespace tfmbs::runtime {

struct QuantizedWeights {
  BitPlaneMatrix planes;
  std::vector<double> scales;             // empty: 1; one value: for all outputs; else one each
  std::vector<std::uint8_t> nan_outputs;  // empty: none
  std::uint64_t zeros{0};

  // Zeros among all weights, 0 for an empty matrix. Rounded nowhere: whoever shows it rounds.
  [[nodiscard]] double sparsity() const noexcept;
};

// Formulas: docs/python-api.md, "Quantizers". Scales are fp32 values unless the weights are fp64.
// Preconditions: quantizer is not kCustom; depth <= kMaxDepth.
QuantizedWeights quantize_weights(const WeightSource& source, WeightQuantizer quantizer,
                                  const Executor& executor);
// Weights that somebody else quantized. Errors: kInvalidArgument (a value that is no trit).
Result<QuantizedWeights> read_trits(const TritSource& source);
// A scale that is NaN makes its output NaN. Errors: kEncoding (a byte above 242, by its offset),
// kInvalidArgument (as many scales as neither 1 nor one an output, or a stream of another size).
Result<QuantizedWeights> read_stream(const StreamSource& source);

}  // namespace tfmbs::runtime
