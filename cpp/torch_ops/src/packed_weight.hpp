// Packed weights as an op gets them.
#pragma once

#include <cstdint>

#include "tensors.hpp"
#include "tfmbs/format/weight_panels.hpp"
#include "tfmbs/runtime/packed_source.hpp"
#include "weights.hpp"

namespace tfmbs::torch_ops {

[[nodiscard]] std::uint64_t size_argument(std::int64_t value, const char* what);

// Panels of a matrix; the tensor must outlive them.
[[nodiscard]] WeightPanelsView panels_view(const Tensor& panels, const Text& layout,
                                           std::int64_t out_features, std::int64_t in_features);

// A packed layer's weights; `source` points into the object.
class PackedWeight {
 public:
  PackedWeight(const Tensor& panels, const Tensor& scale, const Text& layout,
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
