// A forward's product and epilogue: sums of products, scaled, to the output.
#pragma once

#include <cstddef>
#include <cstdint>

#include "input_quantizer.hpp"
#include "tfmbs/runtime/executor.hpp"
#include "tfmbs/runtime/layer.hpp"
#include "tfmbs/runtime/packed_weights.hpp"

namespace tfmbs::runtime {

// Rows [row, row_end) x outputs [output, output_end) of a forward's output.
struct OutputPart {
  std::size_t row;
  std::size_t row_end;
  std::size_t output;
  std::size_t output_end;
};

// The epilogue alone. `sums` are the part's, row by row.
void apply_epilogue(const OutputPart& part, const std::int32_t* sums, const PackedWeights& weights,
                    const SampleScales& samples, const LinearArgs& args);

// Products and epilogue of the whole output, from what `input` quantized last.
void multiply(const InputQuantizer& input, const PackedWeights& weights, const LinearArgs& args,
              const Executor& executor);

}  // namespace tfmbs::runtime
