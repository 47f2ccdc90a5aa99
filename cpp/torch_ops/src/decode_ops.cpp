// Ops of decoding: a decoder block at one new position, and an output head of int8.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "errors.hpp"
#include "layer_calls.hpp"
#include "packed_weight.hpp"
#include "tensors.hpp"
#include "tfmbs/decode/block.hpp"
#include "tfmbs/decode/int8_rows.hpp"
#include "tfmbs/format/large_memory.hpp"
#include "torch_executor.hpp"

namespace tfmbs::torch_ops {
namespace {

using decode::kProducts;
using decode::Product;
using kernels::FloatType;

std::string sizes_text(const Tensor& tensor) {
  std::string text = "[";
  for (std::int64_t d = 0; d < tensor.dim(); ++d) {
    text += (d == 0 ? "" : ", ") + std::to_string(tensor.size(d));
  }
  return text + "]";
}

kernels::GateFunction gate_function(std::string_view name) {
  if (name == "silu") return kernels::GateFunction::kSilu;
  check(name == "relu2", "tfmbs: gate is \"", name, "\"; allowed are silu and relu2");
  return kernels::GateFunction::kSquaredRelu;
}

const void* norm_weight(const std::vector<Tensor>& norms, std::size_t i, ScalarType type,
                        std::size_t size) {
  const Tensor& weight = norms[i];
  check(weight.scalar_type() == type && weight.dim() == 1 && weight.is_contiguous() &&
            static_cast<std::size_t>(weight.numel()) == size,
        "tfmbs: norm ", i, " is of sizes ", sizes_text(weight), "; ", size,
        " values of hidden's dtype are needed");
  return data_of(weight, "norm");
}

// The mask's values that `positions` positions see, as what is added to scores; empty where all do.
struct Mask {
  std::vector<float> values;
  std::size_t stride{0};
};

Mask added_mask(const std::optional<Tensor>& mask, std::size_t sequences, std::size_t positions) {
  if (!mask) return {};
  const auto rows = static_cast<std::size_t>(mask->dim() == 4 ? mask->size(0) : 0);
  check(mask->dim() == 4 && (rows == 1 || rows == sequences) && mask->size(1) == 1 &&
            mask->size(2) == 1 && static_cast<std::size_t>(mask->size(3)) >= positions,
        "tfmbs: mask is of sizes ", sizes_text(*mask), "; allowed are [1 or ", sequences,
        ", 1, 1, at least ", positions, "]");
  const Tensor dense = as_contiguous(*mask, "mask");
  const auto* bytes = static_cast<const std::byte*>(data_of(dense, "mask"));
  const auto row_size = static_cast<std::size_t>(mask->size(3));
  const bool is_bool = mask->scalar_type() == ScalarType::Bool;
  const bool is_wide = mask->scalar_type() == ScalarType::Float;
  check(is_bool || is_wide || mask->scalar_type() == ScalarType::BFloat16,
        "tfmbs: mask must be bool, float32 or bfloat16");
  Mask made{std::vector<float>(rows * positions), rows == 1 ? 0 : positions};
  bool all_seen = true;
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t p = 0; p < positions; ++p) {
      float& value = made.values[r * positions + p];
      const std::size_t at = r * row_size + p;
      if (is_bool) {
        const bool seen = bytes[at] != std::byte{0};
        value = seen ? 0.0F : -std::numeric_limits<float>::infinity();
      } else if (is_wide) {
        std::memcpy(&value, bytes + 4 * at, sizeof value);
      } else {
        std::uint16_t half = 0;
        std::memcpy(&half, bytes + 2 * at, sizeof half);
        const std::uint32_t bits = std::uint32_t{half} << 16;
        std::memcpy(&value, &bits, sizeof value);
      }
      all_seen = all_seen && value == 0.0F;
    }
  }
  if (all_seen) return {};
  return made;
}

// The seven layers of a block, as lists of the op.
class BlockLayers {
 public:
  struct Lists {
    const std::vector<Tensor>& panels;
    const std::vector<Tensor>& scales;
    const std::vector<Tensor>& biases;  // without elements: none
    const std::vector<Tensor>& identities;
    std::string_view layouts;  // joined by commas
    const std::vector<std::int64_t>& group_sizes;
    std::string_view activation;
  };
  struct Sizes {
    std::int64_t out_features;
    std::int64_t in_features;
  };

  BlockLayers(const Lists& lists, const std::array<Sizes, kProducts>& sizes, FloatType type)
      : lists_(lists), sizes_(sizes) {
    check(lists.panels.size() == kProducts && lists.scales.size() == kProducts &&
              lists.biases.size() == kProducts && lists.identities.size() == kProducts &&
              lists.group_sizes.size() == kProducts,
          "tfmbs: a block has ", kProducts, " layers");
    std::string_view layouts = lists.layouts;
    for (std::size_t p = 0; p < kProducts; ++p) {
      const std::size_t end = std::min(layouts.find(','), layouts.size());
      weights_[p] = std::make_unique<PackedWeight>(lists.panels[p], lists.scales[p],
                                                   layouts.substr(0, end), sizes[p].out_features,
                                                   sizes[p].in_features, lists.group_sizes[p]);
      layouts.remove_prefix(std::min(end + 1, layouts.size()));
      const Tensor& bias = lists.biases[p];
      check(bias.numel() == 0 || (bias.is_contiguous() && bias.numel() == sizes[p].out_features &&
                                  float_type(bias.scalar_type()).has_value()),
            "tfmbs: the bias of layer ", p, " is of sizes ", sizes_text(bias), "; ",
            sizes[p].out_features, " floats are needed");
      check(type != FloatType::kFloat64, "tfmbs: a block computes in float32 or bfloat16");
    }
  }

  void multiply(Product product, linear::LinearArgs args) const {
    const auto p = static_cast<std::size_t>(product);
    if (const Tensor& bias = lists_.biases[p]; bias.numel() != 0) {
      args.bias = data_of(bias, "bias");
      args.bias_type = require_float(bias, "bias");
    }
    on_layer(trit_key(lists_.identities[p], lists_.activation, lists_.group_sizes[p]),
             sizes_[p].out_features, sizes_[p].in_features, [&](runtime::Layer& layer) {
               return layer.forward(weights_[p]->source(), args, TorchExecutor{});
             });
  }

 private:
  Lists lists_;
  std::array<Sizes, kProducts> sizes_;
  std::array<std::unique_ptr<PackedWeight>, kProducts> weights_;
};

Tensor decode_block(const Tensor& hidden, const Tensor& cosines, const Tensor& sines,
                    const std::optional<Tensor>& mask, Tensor keys, Tensor values, Tensor position,
                    const std::vector<Tensor>& norms, double epsilon,
                    const std::vector<Tensor>& panels, const std::vector<Tensor>& scales,
                    const std::vector<Tensor>& biases, const std::vector<Tensor>& identities,
                    const Text& layouts, const std::vector<std::int64_t>& group_sizes,
                    const Text& activation, const Text& gate, std::int64_t heads,
                    std::int64_t feed_forward, double scaling) {
  const ScalarType type = hidden.scalar_type();
  check(type == ScalarType::Float || type == ScalarType::BFloat16,
        "tfmbs: hidden must be float32 or bfloat16");
  check(hidden.dim() == 3 && hidden.size(1) == 1, "tfmbs: hidden is of sizes ", sizes_text(hidden),
        "; allowed are [sequences, 1, hidden size]");
  const std::int64_t sequences = hidden.size(0);
  const std::int64_t width = hidden.size(2);
  for (const Tensor* cache : {&keys, &values}) {
    check(cache->scalar_type() == type && cache->dim() == 4 && cache->size(0) == sequences &&
              cache->stride(3) == 1,
          "tfmbs: keys and values must be [", sequences,
          ", heads, positions, head size] of hidden's dtype, a head's values side by side; one is ",
          sizes_text(*cache));
  }
  const std::int64_t key_heads = keys.size(1);
  const std::int64_t capacity = keys.size(2);
  const std::int64_t head_size = keys.size(3);
  bool alike = true;
  for (std::int64_t d = 0; d < 4; ++d) {
    alike = alike && keys.size(d) == values.size(d) && keys.stride(d) == values.stride(d);
  }
  check(alike, "tfmbs: keys and values must have the same sizes and strides");
  constexpr std::int64_t kMostHeads = std::int64_t{1} << 20;  // sizes below do not overflow
  check(key_heads > 0 && heads > 0 && heads <= kMostHeads && heads % key_heads == 0,
        "tfmbs: ", heads, " heads cannot share the keys of ", key_heads);
  check(head_size > 0 && head_size % (2 * static_cast<std::int64_t>(kernels::kFloatLanes)) == 0 &&
            head_size <= static_cast<std::int64_t>(kernels::kMaxHeadSize),
        "tfmbs: the head size is ", head_size, "; allowed are multiples of ",
        2 * kernels::kFloatLanes, " up to ", kernels::kMaxHeadSize);
  check(position.scalar_type() == ScalarType::Long && position.numel() == 1,
        "tfmbs: position must be one int64");
  static_cast<void>(data_of(position, "position"));
  auto* const next = static_cast<std::int64_t*>(position.mutable_data_ptr());
  check(*next >= 0 && *next < capacity, "tfmbs: position ", *next, " is outside of the cache's ",
        capacity);
  const auto positions = static_cast<std::size_t>(*next) + 1;
  for (const Tensor* angles : {&cosines, &sines}) {
    check(angles->scalar_type() == type && angles->dim() == 3 && angles->size(1) == 1 &&
              angles->size(2) == head_size &&
              (angles->size(0) == 1 || angles->size(0) == sequences),
          "tfmbs: cosines and sines must be [1 or ", sequences, ", 1, ", head_size,
          "] of hidden's dtype; one is ", sizes_text(*angles));
  }
  check(cosines.size(0) == sines.size(0), "tfmbs: cosines and sines must have the same sizes");
  check(feed_forward > 0, "tfmbs: feed_forward is ", feed_forward);
  check(norms.size() == 2 || norms.size() == 4, "tfmbs: a block has 2 or 4 norms, not ",
        norms.size());

  const std::int64_t query_size = heads * head_size;
  const std::int64_t key_size = key_heads * head_size;
  const FloatType float_kind = require_float(hidden, "hidden");
  const BlockLayers layers({.panels = panels,
                            .scales = scales,
                            .biases = biases,
                            .identities = identities,
                            .layouts = layouts.view(),
                            .group_sizes = group_sizes,
                            .activation = activation.view()},
                           {{{query_size, width},
                             {key_size, width},
                             {key_size, width},
                             {width, query_size},
                             {feed_forward, width},
                             {feed_forward, width},
                             {width, feed_forward}}},
                           float_kind);
  const auto size_of = [](std::int64_t value) { return static_cast<std::size_t>(value); };
  const decode::BlockShape shape{.type = float_kind,
                                 .hidden = size_of(width),
                                 .heads = size_of(heads),
                                 .key_heads = size_of(key_heads),
                                 .head_size = size_of(head_size),
                                 .feed_forward = size_of(feed_forward),
                                 .scaling = static_cast<float>(scaling),
                                 .gate = gate_function(gate.view())};
  decode::Norms weights{.input = norm_weight(norms, 0, type, shape.hidden),
                        .post_attention = norm_weight(norms, 1, type, shape.hidden),
                        .epsilon = static_cast<float>(epsilon)};
  if (norms.size() == 4) {
    weights.attention_output = norm_weight(norms, 2, type, size_of(query_size));
    weights.feed_forward = norm_weight(norms, 3, type, shape.feed_forward);
  }
  const Tensor dense = as_contiguous(hidden, "hidden");
  const Tensor dense_cosines = as_contiguous(cosines, "cosines");
  const Tensor dense_sines = as_contiguous(sines, "sines");
  const Mask added = added_mask(mask, size_of(sequences), positions);
  static_cast<void>(data_of(keys, "keys"));
  static_cast<void>(data_of(values, "values"));
  Tensor out = empty({sequences, 1, width}, type);
  decode::run_block(
      shape, weights,
      {.hidden = data_of(dense, "hidden"),
       .sequences = size_of(sequences),
       .cosines = data_of(dense_cosines, "cosines"),
       .sines = data_of(dense_sines, "sines"),
       .angle_stride = cosines.size(0) == 1 ? 0 : shape.head_size,
       .cache = {.keys = keys.mutable_data_ptr(),
                 .values = values.mutable_data_ptr(),
                 .sequence_stride = size_of(keys.stride(0)),
                 .head_stride = size_of(keys.stride(1)),
                 .position_stride = size_of(keys.stride(2)),
                 .capacity = size_of(capacity)},
       .position = positions - 1,
       .mask = added.values.empty() ? nullptr : added.values.data(),
       .mask_stride = added.stride,
       .out = out.mutable_data_ptr()},
      [&](Product product, const linear::LinearArgs& args) { layers.multiply(product, args); },
      TorchExecutor{});
  ++*next;
  return out;
}

// --- an output head of int8
// -----------------------------------------------------------------------

std::tuple<Tensor, Tensor> int8_rows(const Tensor& weight) {
  check_matrix(weight, "weight");
  const FloatType type = require_float(weight, "weight");
  check(type != FloatType::kFloat64, "tfmbs: weight must be float32, bfloat16 or float16");
  const Tensor dense = as_contiguous(weight, "weight");
  Tensor values = empty({weight.size(0), weight.size(1)}, ScalarType::Char);
  Tensor scales = empty({weight.size(0)}, ScalarType::Double);
  const auto rows = static_cast<std::size_t>(weight.size(0));
  large_memory::prefer_huge_pages(values.mutable_data_ptr(),
                                  static_cast<std::size_t>(values.numel()));
  std::vector<std::uint8_t> nan_rows(rows);
  auto* const of_rows = static_cast<double*>(scales.mutable_data_ptr());
  decode::quantize_rows(
      {data_of(dense, "weight"), type, rows, static_cast<std::size_t>(weight.size(1))},
      static_cast<std::int8_t*>(values.mutable_data_ptr()), of_rows, nan_rows.data(),
      TorchExecutor{});
  for (std::size_t r = 0; r < rows; ++r) {
    if (nan_rows[r] != 0) of_rows[r] = std::numeric_limits<double>::quiet_NaN();
  }
  return {values, scales};
}

Tensor int8_linear(const Tensor& input, const Tensor& values, const Tensor& scales,
                   const std::optional<Tensor>& bias) {
  check_matrix(values, "values");
  check(values.scalar_type() == ScalarType::Char && values.is_contiguous(),
        "tfmbs: values must be a contiguous matrix of int8");
  check(scales.scalar_type() == ScalarType::Double && scales.is_contiguous() &&
            scales.numel() == values.size(0),
        "tfmbs: scales must be ", values.size(0), " values of float64");
  check(values.size(1) <= static_cast<std::int64_t>(kernels::kMaxDenseDepth),
        "tfmbs: an int8 layer takes up to ", kernels::kMaxDenseDepth, " inputs, not ",
        values.size(1));
  check(require_float(input, "input") != FloatType::kFloat64,
        "tfmbs: input must be float32, bfloat16 or float16");
  const std::int64_t sizes[] = {values.size(0), values.size(1)};
  const Operands operands =
      prepare_operands(input, {.type = float_type(input.scalar_type()), .sizes = sizes}, bias,
                       std::nullopt, Operands::Options{.relu = false, .wide_bias = true});
  decode::int8_linear({.values = static_cast<const std::int8_t*>(data_of(values, "values")),
                       .outputs = static_cast<std::size_t>(values.size(0)),
                       .depth = static_cast<std::size_t>(values.size(1)),
                       .scales = static_cast<const double*>(data_of(scales, "scales"))},
                      operands.args, TorchExecutor{});
  return operands.output;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tfmbs, m) {
  m.def(
      "decode_block(Tensor hidden, Tensor cosines, Tensor sines, Tensor? mask, Tensor(a!) keys, "
      "Tensor(b!) values, Tensor(c!) position, Tensor[] norms, float epsilon, Tensor[] panels, "
      "Tensor[] scales, Tensor[] biases, Tensor[] identities, str layouts, int[] group_sizes, "
      "str activation, str gate, int heads, int feed_forward, float scaling) -> Tensor");
  m.def("int8_rows(Tensor weight) -> (Tensor values, Tensor scales)");
  m.def("int8_linear(Tensor input, Tensor values, Tensor scales, Tensor? bias) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(tfmbs, CPU, m) {
  m.impl("decode_block", TORCH_BOX(&decode_block));
  m.impl("int8_rows", TORCH_BOX(&int8_rows));
  m.impl("int8_linear", TORCH_BOX(&int8_linear));
}

}  // namespace tfmbs::torch_ops
