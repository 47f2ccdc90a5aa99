// A packed layer's weights as an op gets them: panels, scales, and what says how they are packed.
#pragma once

#include <cstdint>

#include "tensors.hpp"
#include "tfmbs/format/weight_panels.hpp"
#include "tfmbs/runtime/packed_source.hpp"
#include "weights.hpp"

namespace tfmbs::torch_ops {

// Throws where `value` is negative; `what` names it.
[[nodiscard]] std::uint64_t size_argument(std::int64_t value, const char* what);

// Panels of a matrix. Throws where the tensor is not of their size.
[[nodiscard]] WeightPanelsView panels_view(const Tensor& panels, std::string_view layout,
                                           std::int64_t out_features, std::int64_t in_features);

// `source` points into the object, and this to the tensors.
class PackedWeight {
 public:
  PackedWeight(const Tensor& panels, const Tensor& scale, std::string_view layout,
               std::int64_t out_features, std::int64_t in_features, std::int64_t group_size);
  PackedWeight(const PackedWeight&) = delete;
  PackedWeight& operator=(const PackedWeight&) = delete;
  [[nodiscard]] const runtime::PackedSource& source() const noexcept { return source_; }

 private:
  TensorStorage panels_;
  TensorStorage scale_;
  runtime::PackedSource source_;
};

}  // namespace tfmbs::torch_ops
