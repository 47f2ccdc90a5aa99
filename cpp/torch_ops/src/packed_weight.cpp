#include "packed_weight.hpp"

#include <cstddef>
#include <string>

#include "errors.hpp"

namespace tfmbs::torch_ops {

std::uint64_t size_argument(std::int64_t value, const char* what) {
  check(value >= 0, "tfmbs: ", what, " is ", value, "; it must not be negative");
  return static_cast<std::uint64_t>(value);
}

WeightPanelsView panels_view(const Tensor& panels, const Text& layout, std::int64_t out_features,
                             std::int64_t in_features) {
  check(panels.scalar_type() == ScalarType::Byte && panels.dim() == 1 && panels.is_contiguous(),
        "tfmbs: panels must be a contiguous vector of uint8");
  WeightPanelsView view{.bytes = static_cast<const std::uint8_t*>(data_of(panels, "panels")),
                        .layout = require(parse_weight_layout(layout.view())),
                        .outputs = size_argument(out_features, "out_features"),
                        .depth = size_argument(in_features, "in_features")};
  const std::size_t bytes = in_features == 0 ? 0 : view.size();
  check(static_cast<std::size_t>(panels.numel()) == bytes, "tfmbs: panels hold ", panels.numel(),
        " bytes; ", out_features, " x ", in_features, " weights packed as ",
        std::string(layout.view()), " take ", bytes);
  return view;
}

PackedWeight::PackedWeight(const Tensor& panels, const Tensor& scale, const Text& layout,
                           std::int64_t out_features, std::int64_t in_features,
                           std::int64_t group_size)
    : panels_(panels), scale_(scale) {
  check(scale.scalar_type() == ScalarType::Float && scale.dim() == 1 && scale.is_contiguous(),
        "tfmbs: scale must be a contiguous vector of float32");
  source_ = {.panels = panels_view(panels, layout, out_features, in_features),
             .scales = {static_cast<const float*>(data_of(scale, "scale")),
                        static_cast<std::size_t>(scale.numel())},
             .group = size_argument(group_size, "group_size"),
             .panels_version = version_or_none(panels),
             .scales_version = version_or_none(scale),
             .panels_owner = &panels_,
             .scales_owner = &scale_};
}

}  // namespace tfmbs::torch_ops
