#include "layer_calls.hpp"

#include "tfmbs/format/group_scales.hpp"
#include "tfmbs/format/large_memory.hpp"

namespace tfmbs::torch_ops {
namespace {

linear::Activation activation_of(std::string_view activation) {
  return require(linear::parse_activation(activation));
}

}  // namespace

Operands prepare_operands(const Tensor& input, const runtime::TensorView& weight,
                          const std::optional<Tensor>& bias, std::optional<ScalarType> out_dtype,
                          Operands::Options options) {
  const ScalarType out_type = out_dtype.value_or(input.scalar_type());
  Operands operands{as_contiguous(input, "input"), std::nullopt, input, {}};
  runtime::LinearRequest request{.input = view_of(operands.input),
                                 .weight = weight,
                                 .wide_bias = options.wide_bias,
                                 .relu = options.relu};
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

runtime::LayerKey key_of(const Tensor& identity, const Text& quantizer, const Text& activation) {
  return {identity_text(identity), require(linear::parse_weight_quantizer(quantizer.view())),
          activation_of(activation.view())};
}
runtime::LayerKey trit_key(const Tensor& identity, std::string_view activation,
                           std::int64_t group_size) {
  check(group_size >= 0 && group_size <= static_cast<std::int64_t>(kMostScaleGroup),
        "tfmbs: group_size is ", group_size, "; allowed are 32, 64, 128, 256, and 0 for none");
  return {identity_text(identity), linear::WeightQuantizer::kCustom, activation_of(activation),
          static_cast<std::uint32_t>(group_size)};
}

}  // namespace tfmbs::torch_ops
