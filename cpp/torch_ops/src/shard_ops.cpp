// Ops of layers that several processes share: what a process computes of its part of a weight, and
// what is made of the parts' sums. torch.distributed adds the parts (python/pytfmbs/distributed).
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

#include "errors.hpp"
#include "layer_calls.hpp"
#include "packed_weight.hpp"
#include "tensors.hpp"
#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/format/group_scales.hpp"
#include "tfmbs/kernels/weight_statistics.hpp"
#include "tfmbs/linear/product.hpp"
#include "tfmbs/linear/quantized_weights.hpp"
#include "torch_executor.hpp"

namespace tfmbs::torch_ops {
namespace {

using kernels::FloatType;
using kernels::MagnitudeSum;

// --- weights -------------------------------------------------------------------------------------

Tensor weight_magnitudes(const Tensor& weight, bool by_output,
                         const std::optional<Tensor>& thresholds) {
  check_matrix(weight, "weight");
  const FloatType type = require_float(weight, "weight");
  const Tensor dense = as_contiguous(weight, "weight");
  const auto* data = static_cast<const std::byte*>(data_of(dense, "weight"));
  const auto outputs = static_cast<std::size_t>(weight.size(0));
  const auto depth = static_cast<std::size_t>(weight.size(1));
  std::vector<double> above;
  if (thresholds) {
    check(by_output, "tfmbs: thresholds are of outputs, and so must be their sums");
    above = vector_values(*thresholds, "thresholds", outputs);
  }
  const std::size_t sums = by_output ? outputs : 1;
  const std::size_t words = MagnitudeSum(type).words().size();
  Tensor out =
      empty({static_cast<std::int64_t>(sums), static_cast<std::int64_t>(words)}, ScalarType::Long);
  auto* const values = static_cast<std::int64_t*>(out.mutable_data_ptr());
  if (!by_output) {
    MagnitudeSum sum(type);
    sum.add(data, outputs * depth);
    std::ranges::copy(sum.words(), values);
    return out;
  }
  TorchExecutor{}.parallel_for(outputs, 1 + (std::size_t{1} << 16) / (depth + 1),
                               [&](std::size_t begin, std::size_t end) {
                                 for (; begin < end; ++begin) {
                                   MagnitudeSum sum(type);
                                   sum.add(data + begin * depth * kernels::float_bytes(type), depth,
                                           above.empty() ? -1.0 : above[begin]);
                                   std::ranges::copy(sum.words(), values + begin * words);
                                 }
                               });
  return out;
}

std::tuple<Tensor, Tensor> weight_rule(const Tensor& magnitudes, const Text& quantizer, bool wide) {
  const FloatType type = wide ? FloatType::kFloat64 : FloatType::kFloat32;
  const auto kind = require(linear::parse_weight_quantizer(quantizer.view()));
  check(kind == linear::WeightQuantizer::kAbsmean || kind == linear::WeightQuantizer::kTwn,
        "tfmbs: quantizer ", std::string(quantizer.view()), " measures no magnitudes");
  const std::size_t words = MagnitudeSum(type).words().size();
  check(magnitudes.dim() == 2 && magnitudes.scalar_type() == ScalarType::Long &&
            static_cast<std::size_t>(magnitudes.size(1)) == words,
        "tfmbs: magnitudes must be int64, sums x ", words);
  const Tensor dense = as_contiguous(magnitudes, "magnitudes");
  const auto* values = static_cast<const std::int64_t*>(data_of(dense, "magnitudes"));
  const auto sums = static_cast<std::size_t>(magnitudes.size(0));
  std::vector<double> thresholds(sums);
  std::vector<double> scales(sums);
  for (std::size_t i = 0; i < sums; ++i) {
    MagnitudeSum sum(type);
    sum.add_words({values + i * words, words});
    const linear::WeightRule rule = linear::weight_rule(kind, sum.mean(), type);
    thresholds[i] = rule.threshold;
    scales[i] = rule.scale;
  }
  const Extents sizes{magnitudes.size(0)};
  return {scale_tensor(thresholds.data(), sizes, true), scale_tensor(scales.data(), sizes, wide)};
}

std::tuple<Tensor, Tensor> trits_above(const Tensor& weight, const Tensor& thresholds) {
  check_matrix(weight, "weight");
  const FloatType type = require_float(weight, "weight");
  const Tensor dense = as_contiguous(weight, "weight");
  const auto* data = static_cast<const std::byte*>(data_of(dense, "weight"));
  const auto outputs = static_cast<std::size_t>(weight.size(0));
  const auto depth = static_cast<std::size_t>(weight.size(1));
  std::vector<double> each = scale_values(thresholds, weight.size(0));
  if (each.size() != outputs) each.assign(outputs, each[0]);
  Tensor trits = empty({weight.size(0), weight.size(1)}, ScalarType::Char);
  Tensor nan_outputs = empty({weight.size(0)}, ScalarType::Byte);
  auto* const values = static_cast<std::int8_t*>(trits.mutable_data_ptr());
  auto* const nans = static_cast<std::uint8_t*>(nan_outputs.mutable_data_ptr());
  TorchExecutor{}.parallel_for(
      outputs, 1 + (std::size_t{1} << 16) / (depth + 1), [&](std::size_t begin, std::size_t end) {
        BitPlaneMatrix planes(end - begin, depth);
        kernels::active().ternarize({.input = data + begin * depth * kernels::float_bytes(type),
                                     .type = type,
                                     .rows = end - begin,
                                     .columns = depth,
                                     .row_stride = depth,
                                     .thresholds = &each[begin],
                                     .planes = planes.data(),
                                     .nan_rows = nans + begin});
        require(unpack_bit_planes(planes.view(), {values + begin * depth, (end - begin) * depth}));
      });
  return {trits, nan_outputs};
}

// --- the product ---------------------------------------------------------------------------------

Tensor packed_sums(const Tensor& input, const std::optional<Tensor>& magnitudes,
                   const Tensor& panels, const Tensor& scale, const Tensor& identity,
                   const Text& layout, std::int64_t out_features, std::int64_t in_features,
                   std::int64_t group_size, const Text& activation) {
  const PackedWeight weights(panels, scale, layout.view(), out_features, in_features, group_size);
  const std::int64_t shape[] = {out_features, in_features};
  const Tensor dense = as_contiguous(input, "input");
  const runtime::LinearRequest request{
      .input = view_of(dense), .weight = {.type = float_type(input.scalar_type()), .sizes = shape}};
  runtime::LinearCall call = require_operands(runtime::build_call(request));
  std::vector<double> given;
  if (magnitudes) {
    given = vector_values(*magnitudes, "magnitudes", call.args.samples);
    call.args.magnitudes = given.data();
  }
  const std::int64_t groups = group_size == 0 ? 1 : (in_features + group_size - 1) / group_size;
  Extents sizes(input.sizes().size() + 1);
  sizes[0] = groups;
  std::ranges::copy(input.sizes(), sizes.data() + 1);
  sizes.back() = out_features;
  Tensor sums = empty(sizes, ScalarType::Int);
  call.args.sums = static_cast<std::int32_t*>(sums.mutable_data_ptr());
  on_layer(trit_key(identity, activation.view(), group_size), out_features, in_features,
           [&](runtime::Layer& layer) {
             return layer.forward(weights.source(), call.args, TorchExecutor{});
           });
  return sums;
}

Tensor scaled_sums(const Tensor& sums, const Tensor& row_scale, const Tensor& scale,
                   const std::optional<Tensor>& bias, std::int64_t in_features,
                   std::int64_t group_size, bool wide, ScalarType dtype) {
  check(sums.scalar_type() == ScalarType::Int && sums.dim() >= 2,
        "tfmbs: sums must be int32, groups x [...] x out_features");
  const Tensor dense = as_contiguous(sums, "sums");
  const auto dimensions = static_cast<std::size_t>(sums.dim());
  const std::int64_t outputs = sums.sizes()[dimensions - 1];
  Extents sizes(dimensions - 1);
  std::size_t samples = 1;
  for (std::size_t i = 1; i < dimensions; ++i) {
    sizes[i - 1] = sums.sizes()[i];
    if (i + 1 < dimensions) samples *= static_cast<std::size_t>(sums.sizes()[i]);
  }
  const auto type = float_type(dtype);
  check(type.has_value(), "tfmbs: dtype must be float32, float64, bfloat16 or float16");
  std::vector<double> row_scales = vector_values(row_scale, "row_scale", samples);
  std::vector<std::uint8_t> nan_rows(samples);
  for (std::size_t m = 0; m < samples; ++m) nan_rows[m] = row_scales[m] != row_scales[m] ? 1 : 0;

  linear::OutputScales scales{.outputs = static_cast<std::size_t>(outputs)};
  std::vector<double> values;
  std::vector<std::uint8_t> nan_outputs;
  std::int64_t groups = 1;
  if (group_size == 0) {
    values = scale_values(scale, outputs);
    nan_outputs.resize(scales.outputs);
    for (std::size_t n = 0; n < scales.outputs; ++n) {
      const double of_output = values[values.size() == 1 ? 0 : n];
      nan_outputs[n] = of_output != of_output ? 1 : 0;
    }
    scales.scales = values;
    scales.nan_outputs = nan_outputs;
  } else {
    check(group_size > 0 && is_scale_group(static_cast<std::size_t>(group_size)),
          "tfmbs: group_size is ", group_size, "; allowed are 32, 64, 128 and 256");
    scales.groups = {static_cast<const float*>(data_of(scale, "scale")),
                     static_cast<std::size_t>(group_size), scales.outputs,
                     size_argument(in_features, "in_features")};
    check(scale.scalar_type() == ScalarType::Float && scale.is_contiguous() &&
              static_cast<std::size_t>(scale.numel()) == scales.groups.size(),
          "tfmbs: ", scale.numel(), " group scales; ", scales.groups.size(), " are needed");
    groups = static_cast<std::int64_t>(scales.groups.groups());
  }
  check(sums.sizes()[0] == groups, "tfmbs: sums of ", sums.sizes()[0], " groups; the scales have ",
        groups);
  linear::LinearArgs args{.input_type = wide ? FloatType::kFloat64 : FloatType::kFloat32,
                          .samples = samples,
                          .output_type = *type};
  std::optional<Tensor> dense_bias;
  if (bias) {
    check(bias->dim() == 1 && bias->size(0) == outputs, "tfmbs: bias must be a vector of ", outputs,
          " values");
    dense_bias = as_contiguous(*bias, "bias");
    args.bias = data_of(*dense_bias, "bias");
    args.bias_type = require_float(*bias, "bias");
  }
  Tensor output = empty(sizes, dtype);
  if (output.numel() == 0) return output;
  args.output = output.mutable_data_ptr();
  linear::apply_scales({static_cast<const std::int32_t*>(data_of(dense, "sums")),
                        static_cast<std::size_t>(sums.numel())},
                       scales, {row_scales.data(), nan_rows.data()}, args);
  return output;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tfmbs, m) {
  m.def("weight_magnitudes(Tensor weight, bool by_output, Tensor? thresholds=None) -> Tensor");
  m.def(
      "weight_rule(Tensor magnitudes, str quantizer, bool wide) -> "
      "(Tensor thresholds, Tensor scale)");
  m.def("trits_above(Tensor weight, Tensor thresholds) -> (Tensor trits, Tensor nan_outputs)");
  m.def(
      "packed_sums(Tensor input, Tensor? magnitudes, Tensor panels, Tensor scale, Tensor identity, "
      "str layout, int out_features, int in_features, int group_size, str activation) -> Tensor");
  m.def(
      "scaled_sums(Tensor sums, Tensor row_scale, Tensor scale, Tensor? bias, int in_features, "
      "int group_size, bool wide, ScalarType dtype) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(tfmbs, CPU, m) {
  m.impl("weight_magnitudes", TORCH_BOX(&weight_magnitudes));
  m.impl("weight_rule", TORCH_BOX(&weight_rule));
  m.impl("trits_above", TORCH_BOX(&trits_above));
  m.impl("packed_sums", TORCH_BOX(&packed_sums));
  m.impl("scaled_sums", TORCH_BOX(&scaled_sums));
}

}  // namespace tfmbs::torch_ops
