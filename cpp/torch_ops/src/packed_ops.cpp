// Ops of packed layers: the product, and the ways between trits, rows of files (row-aligned PT-5)
// and the kernels' panels.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "errors.hpp"
#include "gradients.hpp"
#include "layer_calls.hpp"
#include "packed_weight.hpp"
#include "tensors.hpp"
#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/format/group_scales.hpp"
#include "tfmbs/format/pt5.hpp"
#include "tfmbs/format/weight_panels.hpp"
#include "torch_executor.hpp"

namespace tfmbs::torch_ops {
namespace {

Tensor packed_linear(const Tensor& input, const Tensor& panels, const Tensor& scale,
                     const std::optional<Tensor>& bias, const Tensor& identity, const Text& layout,
                     std::int64_t out_features, std::int64_t in_features, std::int64_t group_size,
                     const Text& activation, std::optional<double> /*ste_clip*/,
                     std::optional<ScalarType> out_dtype) {
  const PackedWeight weights(panels, scale, layout.view(), out_features, in_features, group_size);
  const std::int64_t sizes[] = {out_features, in_features};
  const Operands operands =
      prepare_operands(input, {.type = float_type(input.scalar_type()), .sizes = sizes}, bias,
                       out_dtype, Operands::Options{.relu = false, .wide_bias = true});
  on_layer(trit_key(identity, activation.view(), group_size), out_features, in_features,
           [&](runtime::Layer& layer) {
             return layer.forward(weights.source(), operands.args, TorchExecutor{});
           });
  return operands.output;
}

bool prefetch_packed(const Tensor& panels, const Tensor& scale, const Tensor& identity,
                     const Text& layout, std::int64_t out_features, std::int64_t in_features,
                     std::int64_t group_size, const Text& activation) {
  const PackedWeight weights(panels, scale, layout.view(), out_features, in_features, group_size);
  return on_layer(
      trit_key(identity, activation.view(), group_size), out_features, in_features,
      [&](runtime::Layer& layer) { return layer.prefetch(weights.source(), TorchExecutor{}); });
}

Tensor input_gradient_packed(const Tensor& grad, const Tensor& panels, const Tensor& scale,
                             const std::optional<Tensor>& kept, const Text& layout,
                             std::int64_t out_features, std::int64_t in_features,
                             std::int64_t group_size, const Text& activation, bool values,
                             ScalarType dtype) {
  const PackedWeight weights(panels, scale, layout.view(), out_features, in_features, group_size);
  const runtime::PackedSource& source = weights.source();
  require(runtime::check_packed(source));
  std::vector<double> scales;
  if (source.group == 0) scales.assign(source.scales.begin(), source.scales.end());
  return input_gradient_of(grad,
                           {.trits = source.panels,
                            .outputs = source.panels.outputs,
                            .depth = source.panels.depth,
                            .scales = scales,
                            .groups = source.groups()},
                           kept, activation, values, dtype);
}

// --- between the forms: a portion of rows at a time, on every thread -----------------------------

constexpr std::size_t kGrainTrits = std::size_t{1} << 18;

// Calls body(first, count) for rows in portions of whole panels.
template <typename Body>
void for_each_portion(std::size_t rows, std::size_t columns, const Body& body) {
  const std::size_t panels = (rows + kPanelOutputs - 1) / kPanelOutputs;
  const std::size_t grain = 1 + kGrainTrits / kPanelOutputs / std::max<std::size_t>(1, columns);
  TorchExecutor{}.parallel_for(panels, grain, [&](std::size_t begin, std::size_t end) {
    for (std::size_t p = begin; p < end; ++p) {
      const std::size_t first = p * kPanelOutputs;
      body(first, std::min(kPanelOutputs, rows - first));
    }
  });
}

// The panels of a matrix that an op writes, cleared.
WeightPanelsSpan cleared_panels(Tensor& panels, const Text& layout, std::size_t outputs,
                                std::size_t depth) {
  const WeightPanelsView view = panels_view(
      panels, layout.view(), static_cast<std::int64_t>(outputs), static_cast<std::int64_t>(depth));
  const WeightPanelsSpan span{static_cast<std::uint8_t*>(panels.mutable_data_ptr()), view.layout,
                              outputs, depth};
  if (depth != 0 && outputs != 0) clear_panels(span);
  return span;
}

void panels_of_trits(const Tensor& trits, const Text& layout, Tensor out) {
  check_matrix(trits, "trits");
  check(trits.scalar_type() == ScalarType::Char, "tfmbs: trits must be int8");
  const Tensor dense = as_contiguous(trits, "trits");
  const auto rows = static_cast<std::size_t>(trits.size(0));
  const auto columns = static_cast<std::size_t>(trits.size(1));
  const auto* values = static_cast<const std::int8_t*>(data_of(dense, "trits"));
  const WeightPanelsSpan to = cleared_panels(out, layout, rows, columns);
  for_each_portion(rows, columns, [&](std::size_t first, std::size_t count) {
    const auto planes =
        pack_bit_planes({values + first * columns, count * columns}, count, columns);
    if (!planes) {
      const std::uint64_t at = first * columns + planes.error().offset.value_or(0);
      raise({ErrorCode::kInvalidArgument, "trits hold " + std::to_string(values[at]) + " at row " +
                                              std::to_string(at / columns) + ", column " +
                                              std::to_string(at % columns) +
                                              "; allowed are -1, 0 and +1"});
    }
    require(set_panel_rows(to, first, planes.value().view()));
  });
}

void panels_of_rows(const Tensor& packed, std::int64_t in_features, const Text& layout,
                    Tensor out) {
  check_matrix(packed, "packed");
  check(packed.scalar_type() == ScalarType::Byte, "tfmbs: packed must be uint8");
  const auto rows = static_cast<std::size_t>(packed.size(0));
  const std::size_t columns = size_argument(in_features, "in_features");
  const std::size_t row_bytes = pt5_bytes(columns);
  check(static_cast<std::size_t>(packed.size(1)) == row_bytes, "tfmbs: packed has ", packed.size(1),
        " bytes a row; ", in_features, " weights take ", row_bytes);
  const Tensor dense = as_contiguous(packed, "packed");
  const auto* bytes = static_cast<const std::uint8_t*>(data_of(dense, "packed"));
  const WeightPanelsSpan to = cleared_panels(out, layout, rows, columns);
  if (columns == 0) return;
  for_each_portion(rows, columns, [&](std::size_t first, std::size_t count) {
    std::vector<std::int8_t> trits(row_bytes * kTritsPerByte);
    BitPlaneMatrix planes(count, columns);
    for (std::size_t r = 0; r < count; ++r) {
      const std::span<const std::uint8_t> row(bytes + (first + r) * row_bytes, row_bytes);
      const auto fault = [&](std::size_t at) {
        raise({ErrorCode::kEncoding,
               "packed holds byte " + std::to_string(row[at]) + " in row " +
                   std::to_string(first + r) + " at offset " + std::to_string(at) +
                   ", which is no PT-5 code of that place: 0...242, zeros in the padding"});
      };
      if (const auto s = unpack_pt5(row, trits); !s) fault(s.error().offset.value_or(0));
      for (std::size_t k = columns; k < trits.size(); ++k) {
        if (trits[k] != 0) fault(row_bytes - 1);
      }
      const auto one = require(pack_bit_planes(std::span(trits).first(columns), 1, columns));
      std::copy_n(one.view().words, planes.row_words(), planes.row(r));
    }
    require(set_panel_rows(to, first, planes.view()));
  });
}

Tensor trits_of_panels(const Tensor& panels, const Text& layout, std::int64_t out_features,
                       std::int64_t in_features) {
  const WeightPanelsView view = panels_view(panels, layout.view(), out_features, in_features);
  Tensor trits = empty({out_features, in_features}, ScalarType::Char);
  auto* values = static_cast<std::int8_t*>(trits.mutable_data_ptr());
  if (in_features == 0) return trits;
  for_each_portion(view.outputs, view.depth, [&](std::size_t first, std::size_t count) {
    require(unpack_bit_planes(panel_rows(view, first, count).view(),
                              {values + first * view.depth, count * view.depth}));
  });
  return trits;
}

Tensor rows_of_trits(const Tensor& trits) {
  check_matrix(trits, "trits");
  check(trits.scalar_type() == ScalarType::Char, "tfmbs: trits must be int8");
  const Tensor dense = as_contiguous(trits, "trits");
  const auto rows = static_cast<std::size_t>(trits.size(0));
  const auto columns = static_cast<std::size_t>(trits.size(1));
  const std::size_t row_bytes = pt5_bytes(columns);
  const auto* values = static_cast<const std::int8_t*>(data_of(dense, "trits"));
  Tensor packed = empty({trits.size(0), static_cast<std::int64_t>(row_bytes)}, ScalarType::Byte);
  auto* bytes = static_cast<std::uint8_t*>(packed.mutable_data_ptr());
  if (columns == 0) return packed;
  for_each_portion(rows, columns, [&](std::size_t first, std::size_t count) {
    for (std::size_t r = first; r < first + count; ++r) {
      require(pack_pt5({values + r * columns, columns}, {bytes + r * row_bytes, row_bytes}));
    }
  });
  return packed;
}

Tensor rows_of_panels(const Tensor& panels, const Text& layout, std::int64_t out_features,
                      std::int64_t in_features) {
  const WeightPanelsView view = panels_view(panels, layout.view(), out_features, in_features);
  const std::size_t row_bytes = pt5_bytes(view.depth);
  Tensor packed = empty({out_features, static_cast<std::int64_t>(row_bytes)}, ScalarType::Byte);
  auto* bytes = static_cast<std::uint8_t*>(packed.mutable_data_ptr());
  if (in_features == 0) return packed;
  for_each_portion(view.outputs, view.depth, [&](std::size_t first, std::size_t count) {
    std::vector<std::int8_t> trits(count * view.depth);
    require(unpack_bit_planes(panel_rows(view, first, count).view(), trits));
    for (std::size_t r = 0; r < count; ++r) {
      require(pack_pt5(std::span(trits).subspan(r * view.depth, view.depth),
                       {bytes + (first + r) * row_bytes, row_bytes}));
    }
  });
  return packed;
}

// Group scales, [out_features, groups], in the kernels' order, and back.
Tensor ordered_scales(const Tensor& scale, std::int64_t in_features, std::int64_t group_size) {
  check_matrix(scale, "scale");
  check(scale.scalar_type() == ScalarType::Float, "tfmbs: scale must be float32");
  check(group_size > 0 && is_scale_group(static_cast<std::size_t>(group_size)),
        "tfmbs: group_size is ", group_size, "; allowed are 32, 64, 128 and 256");
  const Tensor dense = as_contiguous(scale, "scale");
  const auto outputs = static_cast<std::size_t>(scale.size(0));
  GroupScales ordered(outputs, size_argument(in_features, "in_features"),
                      static_cast<std::size_t>(group_size));
  require(ordered.set_rows(0, {static_cast<const float*>(data_of(dense, "scale")),
                               static_cast<std::size_t>(scale.numel())}));
  const GroupScalesView view = ordered.view();
  Tensor out = empty({static_cast<std::int64_t>(view.size())}, ScalarType::Float);
  std::copy_n(view.values, view.size(), static_cast<float*>(out.mutable_data_ptr()));
  return out;
}

Tensor scale_rows(const Tensor& ordered, std::int64_t out_features, std::int64_t in_features,
                  std::int64_t group_size) {
  check(group_size > 0, "tfmbs: group_size is ", group_size);
  const GroupScalesView view{
      static_cast<const float*>(data_of(ordered, "scale")), static_cast<std::size_t>(group_size),
      size_argument(out_features, "out_features"), size_argument(in_features, "in_features")};
  check(ordered.scalar_type() == ScalarType::Float &&
            static_cast<std::size_t>(ordered.numel()) == view.size(),
        "tfmbs: ", ordered.numel(), " group scales; ", view.size(), " are needed");
  Tensor rows = empty({out_features, static_cast<std::int64_t>(view.groups())}, ScalarType::Float);
  auto* values = static_cast<float*>(rows.mutable_data_ptr());
  for (std::size_t n = 0; n < view.outputs; ++n) {
    for (std::size_t g = 0; g < view.groups(); ++g) {
      values[n * view.groups() + g] = view.values[view.index(n, g)];
    }
  }
  return rows;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tfmbs, m) {
  m.def(
      "packed_linear(Tensor input, Tensor panels, Tensor scale, Tensor? bias, Tensor identity, "
      "str layout, int out_features, int in_features, int group_size, str activation, "
      "float? ste_clip, ScalarType? out_dtype=None) -> Tensor");
  m.def(
      "prefetch_packed(Tensor panels, Tensor scale, Tensor identity, str layout, "
      "int out_features, int in_features, int group_size, str activation) -> bool");
  m.def(
      "input_gradient_packed(Tensor grad, Tensor panels, Tensor scale, Tensor? kept, str layout, "
      "int out_features, int in_features, int group_size, str activation, bool values, "
      "ScalarType dtype) -> Tensor");
  m.def("panels_of_trits(Tensor trits, str layout, Tensor(a!) out) -> ()");
  m.def("panels_of_rows(Tensor packed, int in_features, str layout, Tensor(a!) out) -> ()");
  m.def("rows_of_trits(Tensor trits) -> Tensor");
  m.def("trits_of_panels(Tensor panels, str layout, int out_features, int in_features) -> Tensor");
  m.def("rows_of_panels(Tensor panels, str layout, int out_features, int in_features) -> Tensor");
  m.def("ordered_scales(Tensor scale, int in_features, int group_size) -> Tensor");
  m.def("scale_rows(Tensor ordered, int out_features, int in_features, int group_size) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(tfmbs, CPU, m) {
  m.impl("packed_linear", TORCH_BOX(&packed_linear));
  m.impl("prefetch_packed", TORCH_BOX(&prefetch_packed));
  m.impl("input_gradient_packed", TORCH_BOX(&input_gradient_packed));
  m.impl("panels_of_trits", TORCH_BOX(&panels_of_trits));
  m.impl("panels_of_rows", TORCH_BOX(&panels_of_rows));
  m.impl("rows_of_trits", TORCH_BOX(&rows_of_trits));
  m.impl("trits_of_panels", TORCH_BOX(&trits_of_panels));
  m.impl("rows_of_panels", TORCH_BOX(&rows_of_panels));
  m.impl("ordered_scales", TORCH_BOX(&ordered_scales));
  m.impl("scale_rows", TORCH_BOX(&scale_rows));
}

}  // namespace tfmbs::torch_ops
