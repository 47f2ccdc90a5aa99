// Ops that run a layer: linear products, loading and packing ahead. A layer is named by `identity`,
// a uint8 vector (tfmbs/runtime/layer_spec.hpp): data, so that equal blocks share a compiled graph.
#include <optional>

#include "errors.hpp"
#include "layer_calls.hpp"
#include "tfmbs/runtime/layer.hpp"
#include "torch_executor.hpp"
#include "weights.hpp"

namespace tfmbs::torch_ops {
namespace {

using runtime::Layer;

template <bool kRelu>
Tensor linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
              const Tensor& identity, const Text& quantizer, const Text& activation,
              std::optional<double> /*ste_clip*/, bool training,
              std::optional<ScalarType> out_dtype) {
  const Operands operands =
      prepare_operands(input, view_of(weight), bias, out_dtype, {.relu = kRelu});
  const FloatWeight weights(weight, training);
  on_layer(key_of(identity, quantizer, activation), weight.size(0), weight.size(1),
           [&](Layer& layer) {
             return layer.forward(weights.source(), operands.args, TorchExecutor{});
           });
  return operands.output;
}

Tensor linear_trits(const Tensor& input, const Tensor& weight, const Tensor& trits,
                    const Tensor& scale, const std::optional<Tensor>& bias, const Tensor& identity,
                    const Text& activation, std::optional<double> /*ste_clip*/,
                    std::optional<ScalarType> out_dtype) {
  const TritWeights weights = trit_weights(weight, trits, scale);
  const FloatWeight quantized(weight, false);
  runtime::TensorView view = view_of(weight);
  view.type = float_type(input.scalar_type());  // the trits have none of their own
  const Operands operands = prepare_operands(input, view, bias, out_dtype, {});
  on_layer(trit_key(identity, activation.view()), trits.size(0), trits.size(1), [&](Layer& layer) {
    return layer.forward(weights.source, operands.args, TorchExecutor{}, &quantized.source());
  });
  return operands.output;
}

bool prefetch(const Tensor& weight, const Tensor& identity, const Text& quantizer,
              const Text& activation, bool training) {
  const FloatWeight weights(weight, training);
  return on_layer(key_of(identity, quantizer, activation), weight.size(0), weight.size(1),
                  [&](Layer& layer) { return layer.prefetch(weights.source(), TorchExecutor{}); });
}

bool prefetch_trits(const Tensor& weight, const Tensor& trits, const Tensor& scale,
                    const Tensor& identity, const Text& activation) {
  const TritWeights weights = trit_weights(weight, trits, scale);
  return on_layer(trit_key(identity, activation.view()), trits.size(0), trits.size(1),
                  [&](Layer& layer) { return layer.prefetch(weights.source, TorchExecutor{}); });
}

// Packs what changed, in the layout that is preferred now.
bool pack(const Tensor& weight, const Tensor& identity, const Text& quantizer,
          const Text& activation, bool training) {
  const FloatWeight weights(weight, training);
  on_layer(key_of(identity, quantizer, activation), weight.size(0), weight.size(1),
           [&](Layer& layer) { return layer.prepare(weights.source(), TorchExecutor{}); });
  return true;
}

bool pack_trits(const Tensor& weight, const Tensor& trits, const Tensor& scale,
                const Tensor& identity, const Text& activation) {
  const TritWeights weights = trit_weights(weight, trits, scale);
  on_layer(trit_key(identity, activation.view()), trits.size(0), trits.size(1),
           [&](Layer& layer) { return layer.prepare(weights.source, TorchExecutor{}); });
  return true;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tfmbs, m) {
  m.def(
      "linear(Tensor input, Tensor weight, Tensor? bias, Tensor identity, str quantizer, "
      "str activation, float? ste_clip, bool training, ScalarType? out_dtype=None) -> Tensor");
  m.def(
      "linear_relu(Tensor input, Tensor weight, Tensor? bias, Tensor identity, str quantizer, "
      "str activation, float? ste_clip, bool training, ScalarType? out_dtype=None) -> Tensor");
  m.def(
      "linear_trits(Tensor input, Tensor weight, Tensor trits, Tensor scale, Tensor? bias, "
      "Tensor identity, str activation, float? ste_clip, ScalarType? out_dtype=None) -> Tensor");
  m.def(
      "prefetch(Tensor weight, Tensor identity, str quantizer, str activation, bool training) -> "
      "bool");
  m.def(
      "prefetch_trits(Tensor weight, Tensor trits, Tensor scale, Tensor identity, str activation) "
      "-> bool");
  m.def(
      "pack(Tensor weight, Tensor identity, str quantizer, str activation, bool training) -> bool");
  m.def(
      "pack_trits(Tensor weight, Tensor trits, Tensor scale, Tensor identity, str activation) -> "
      "bool");
}

STABLE_TORCH_LIBRARY_IMPL(tfmbs, CPU, m) {
  m.impl("linear", TORCH_BOX(&linear<false>));
  m.impl("linear_relu", TORCH_BOX(&linear<true>));
  m.impl("linear_trits", TORCH_BOX(&linear_trits));
  m.impl("prefetch", TORCH_BOX(&prefetch));
  m.impl("prefetch_trits", TORCH_BOX(&prefetch_trits));
  m.impl("pack", TORCH_BOX(&pack));
  m.impl("pack_trits", TORCH_BOX(&pack_trits));
}

}  // namespace tfmbs::torch_ops
