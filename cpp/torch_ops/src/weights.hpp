// Weights of one op call, from torch's tensors to the library's sources.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "tensors.hpp"
#include "tfmbs/linear/weight_sources.hpp"
#include "tfmbs/runtime/weight_source.hpp"

namespace tfmbs::torch_ops {

// Gives a reference to a tensor's storage: holding it keeps the storage's address from being used
// again, even after `parameter.data = other`, which swaps storages in place.
class TensorStorage final : public runtime::StorageOwner {
 public:
  explicit TensorStorage(const Tensor& tensor) : tensor_(tensor) {}
  [[nodiscard]] std::shared_ptr<const runtime::RetainedStorage> retain() const override;

 private:
  const Tensor& tensor_;
};

// A trainable layer's weights; `source` points into the object.
class FloatWeight {
 public:
  // training: changes are seen by content.
  FloatWeight(const Tensor& weight, bool training);
  FloatWeight(const FloatWeight&) = delete;
  FloatWeight& operator=(const FloatWeight&) = delete;
  [[nodiscard]] const runtime::WeightSource& source() const noexcept { return source_; }

 private:
  Tensor dense_;
  TensorStorage storage_;
  runtime::WeightSource source_;
};

// Trits that a quantizer in Python made of `weight`. What the source points to is held here.
struct TritWeights {
  Tensor trits;  // contiguous
  std::vector<double> scales;
  std::vector<std::uint8_t> nan_outputs;
  linear::TritSource source;
};
[[nodiscard]] TritWeights trit_weights(const Tensor& weight, const Tensor& trits,
                                       const Tensor& scale);

// The version of a tensor's memory, or none where it counts none.
[[nodiscard]] std::optional<std::int64_t> version_or_none(const Tensor& tensor);

// Scales as the library takes them: fp64 values, one or one an output.
[[nodiscard]] std::vector<double> scale_values(const Tensor& scale, std::int64_t outputs);

}  // namespace tfmbs::torch_ops
