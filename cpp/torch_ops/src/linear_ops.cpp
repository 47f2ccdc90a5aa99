// Ops that run a layer: linear products, loading and packing ahead. A layer is named by `identity`, a
// uint8 vector (tfmbs/runtime/layer_spec.hpp): data, so that equal blocks share a compiled graph.
#include <optional>
#include <thread>
#include <utility>

#include "errors.hpp"
#include "tfmbs/format/large_memory.hpp"
#include "tfmbs/runtime/call.hpp"
#include "tfmbs/runtime/layer_registry.hpp"
#include "torch_executor.hpp"
#include "weights.hpp"

namespace tfmbs::torch_ops {
namespace {

using runtime::Layer;
using runtime::LayerKey;
using runtime::LayerRegistry;

// The operands of one op call, and its output.
struct Operands {
  Tensor input;  // contiguous
  std::optional<Tensor> bias;
  Tensor output;
  linear::LinearArgs args;
};

// weight_sizes: out_features, in_features.
Operands prepare_operands(const Tensor& input, runtime::TensorView weight,
                          const std::optional<Tensor>& bias, std::optional<ScalarType> out_dtype,
                          bool relu) {
  const ScalarType out_type = out_dtype.value_or(input.scalar_type());
  Operands operands{as_contiguous(input, "input"), std::nullopt, input, {}};
  runtime::LinearRequest request{
      .input = view_of(operands.input), .weight = weight, .relu = relu};
  if (bias) {
    operands.bias = as_contiguous(*bias, "bias");
    request.bias = view_of(*operands.bias);
  }
  if (out_dtype) {
    request.out_type = float_type(*out_dtype);
    check(request.out_type.has_value(),
          "tfmbs: out_dtype must be float32, float64, bfloat16 or float16");
  }
  const runtime::LinearCall call = require_operands(runtime::build_call(request));
  Extents sizes = Extents::copy_of(input.sizes());
  sizes.back() = static_cast<std::int64_t>(call.outputs);
  operands.output = empty(sizes, out_type);
  operands.args = call.args;
  operands.args.output = operands.output.mutable_data_ptr();
  large_memory::prefer_huge_pages(operands.args.output, call.output_bytes);
  return operands;
}

linear::Activation activation_of(const Text& activation) {
  return require(linear::parse_activation(activation.view()));
}

// Calls something of a layer. Where another thread moves the layer meanwhile, its identity finds the
// layer that took its place; what the handle is doing then takes microseconds.
template <typename Call>
auto on_layer(const LayerKey& key, std::int64_t outputs, std::int64_t depth, const Call& call) {
  constexpr int kAttempts = 1000;
  for (int attempt = 1;; ++attempt) {
    const auto layer = require(LayerRegistry::instance().find_or_make(
        key, static_cast<std::uint64_t>(outputs), static_cast<std::uint64_t>(depth)));
    // NOLINTNEXTLINE(misc-const-correctness): a Result is moved from
    auto outcome = call(*layer);
    const bool moved = !outcome && outcome.error().code == ErrorCode::kGone;
    if (!moved || attempt == kAttempts) return require(std::move(outcome));
    std::this_thread::yield();
  }
}

// A trainable layer's key.
LayerKey key_of(const Tensor& identity, const Text& quantizer, const Text& activation) {
  return {identity_text(identity), require(linear::parse_weight_quantizer(quantizer.view())),
          activation_of(activation)};
}
// Of a layer whose trits come from a quantizer outside the library.
LayerKey trit_key(const Tensor& identity, const Text& activation) {
  return {identity_text(identity), linear::WeightQuantizer::kCustom, activation_of(activation)};
}

template <bool kRelu>
Tensor linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
              const Tensor& identity, const Text& quantizer, const Text& activation,
              std::optional<double> /*ste_clip*/, bool training,
              std::optional<ScalarType> out_dtype) {
  const Operands operands = prepare_operands(input, view_of(weight), bias, out_dtype, kRelu);
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
  runtime::TensorView view = view_of(weight);
  view.type = float_type(input.scalar_type());  // the trits have none of their own
  const Operands operands = prepare_operands(input, view, bias, out_dtype, false);
  on_layer(trit_key(identity, activation), trits.size(0), trits.size(1), [&](Layer& layer) {
    return layer.forward(weights.source, operands.args, TorchExecutor{});
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
  return on_layer(trit_key(identity, activation), trits.size(0), trits.size(1),
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
  on_layer(trit_key(identity, activation), trits.size(0), trits.size(1),
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
