// The quantizers alone, as pure ops: int8 values and their scales.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "errors.hpp"
#include "tensors.hpp"
#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/linear/activation.hpp"
#include "tfmbs/linear/quantized_weights.hpp"
#include "torch_executor.hpp"

namespace tfmbs::torch_ops {
namespace {

using kernels::FloatType;

std::tuple<Tensor, Tensor> quantize_weight(const Tensor& weight, const Text& quantizer) {
  check_matrix(weight, "weight");
  const auto kind = require(linear::parse_weight_quantizer(quantizer.view()));
  check(kind != linear::WeightQuantizer::kCustom, "tfmbs: a custom quantizer is called in Python");
  const Tensor dense = as_contiguous(weight, "weight");
  const FloatType type = require_float(weight, "weight");
  const auto packed =
      linear::quantize_weights({.data = data_of(dense, "weight"),
                                .type = type,
                                .outputs = static_cast<std::uint64_t>(weight.size(0)),
                                .depth = static_cast<std::uint64_t>(weight.size(1))},
                               kind, TorchExecutor{});
  Tensor trits = empty({weight.size(0), weight.size(1)}, ScalarType::Char);
  require(
      unpack_bit_planes(packed.planes.view(), {static_cast<std::int8_t*>(trits.mutable_data_ptr()),
                                               static_cast<std::size_t>(trits.numel())}));
  const std::vector<double> one{1.0};
  const std::vector<double>& scales = packed.scales.empty() ? one : packed.scales;
  const bool each = kind == linear::WeightQuantizer::kTwn;
  return {trits,
          scale_tensor(scales.data(), {each ? weight.size(0) : 1}, type == FloatType::kFloat64)};
}

std::tuple<Tensor, Tensor> quantize_activation(const Tensor& input, const Text& activation,
                                               const std::optional<Tensor>& magnitudes) {
  check(input.dim() >= 1, "tfmbs: input needs at least one dimension");
  const auto kind = require(linear::parse_activation(activation.view()));
  const FloatType type = require_float(input, "input");
  const Tensor dense = as_contiguous(input, "input");
  Extents sizes = Extents::copy_of(input.sizes());
  const auto depth = static_cast<std::size_t>(sizes.back());
  std::size_t samples = 1;
  for (std::size_t i = 0; i + 1 < sizes.size(); ++i) samples *= static_cast<std::size_t>(sizes[i]);
  Tensor values = empty(sizes, ScalarType::Char);
  sizes.back() = 1;

  const linear::ActivationMode& mode = linear::mode_of(kind);
  std::vector<double> scales(samples, 1.0);
  std::vector<std::uint8_t> nan_rows(samples);
  auto* const out = static_cast<std::int8_t*>(values.mutable_data_ptr());
  BitPlaneMatrix planes(mode.by_values ? 0 : samples, depth);
  std::vector<double> given;
  if (magnitudes) given = vector_values(*magnitudes, "magnitudes", samples);
  mode.quantize({.input = data_of(dense, "input"),
                 .type = type,
                 .rows = samples,
                 .columns = depth,
                 .row_stride = depth,
                 .out = mode.by_values ? static_cast<void*>(out) : planes.data(),
                 .planes = nullptr,
                 .plane_stride = 0,
                 .scales = scales.data(),
                 .nan_rows = nan_rows.data(),
                 .magnitudes = given.empty() ? nullptr : given.data()});
  if (!mode.by_values) require(unpack_bit_planes(planes.view(), {out, samples * depth}));
  return {values, scale_tensor(scales.data(), sizes, type == FloatType::kFloat64)};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tfmbs, m) {
  m.def("quantize_weight(Tensor weight, str quantizer) -> (Tensor trits, Tensor scale)");
  m.def(
      "quantize_activation(Tensor input, str activation, Tensor? magnitudes=None) -> "
      "(Tensor values, Tensor scale)");
}

STABLE_TORCH_LIBRARY_IMPL(tfmbs, CPU, m) {
  m.impl("quantize_weight", TORCH_BOX(&quantize_weight));
  m.impl("quantize_activation", TORCH_BOX(&quantize_activation));
}

}  // namespace tfmbs::torch_ops
