#include "tfmbs/linear/linear.hpp"

#include "tfmbs/execution/workspace.hpp"
#include "tfmbs/linear/activation_quantizer.hpp"
#include "tfmbs/linear/product.hpp"

namespace tfmbs::linear {

void linear(const PackedWeights& weights, Activation activation, const LinearArgs& args,
            const execution::Executor& executor) {
  if (args.samples == 0 || weights.outputs() == 0) return;
  if (weights.depth() == 0) return bias_alone(weights, args);
  execution::Scratch scratch;
  ActivationQuantizer input(args, weights.depth(), activation, scratch);
  input.quantize(executor);
  multiply(input, weights, args, executor);
}

}  // namespace tfmbs::linear
