#include "weights.hpp"

#include <array>
#include <cstddef>
#include <exception>
#include <optional>
#include <span>
#include <string>

#include "errors.hpp"
#include "tfmbs/format/bit_planes.hpp"

namespace tfmbs::torch_ops {
namespace {

using kernels::FloatType;

class RetainedTensor final : public runtime::RetainedStorage {
 public:
  explicit RetainedTensor(AtenTensorHandle handle)
      : tensor_(handle),
        offset_(static_cast<std::size_t>(tensor_.storage_offset()) * tensor_.element_size()) {}
  [[nodiscard]] std::span<const std::byte> memory() const noexcept override {
    const void* data = nullptr;
    std::int64_t held = 0;
    if (torch_get_const_data_ptr(tensor_.get(), &data) != AOTI_TORCH_SUCCESS ||
        aoti_torch_get_storage_size(tensor_.get(), &held) != AOTI_TORCH_SUCCESS) {
      return {};
    }
    const auto bytes = static_cast<std::size_t>(held);
    return {static_cast<const std::byte*>(data), bytes > offset_ ? bytes - offset_ : 0};
  }

 private:
  Tensor tensor_;
  std::size_t offset_;  // in bytes; nobody else has this tensor, so it stays
};

// Where a thread remembers that a weight's memory belonged to no inference tensor.
const void*& remembered(const void* data) {
  constexpr std::size_t kRemembered = 256;
  thread_local std::array<const void*, kRemembered> memory{};
  return memory[reinterpret_cast<std::uintptr_t>(data) / 64 % kRemembered];
}

// A call by name takes as long as a small product, so there are as few as can be.
bool counts_versions(const Tensor& weight) {
  const void* data = weight.const_data_ptr();
  const void*& ordinary = remembered(data);
  if (ordinary == data && data != nullptr) return true;
  if (call_unary<bool>("aten::is_inference", weight)) return false;
  ordinary = data;
  return true;
}

// Memory that became an inference tensor's since it was remembered proves it here.
std::optional<std::int64_t> version_of(const Tensor& weight) {
  try {
    return call_unary<std::int64_t>("aten::_version", weight);
  } catch (const std::exception&) {
    remembered(weight.const_data_ptr()) = nullptr;
    return std::nullopt;
  }
}

}  // namespace

std::shared_ptr<const runtime::RetainedStorage> TensorStorage::retain() const {
  // Not a view in autograd's sense: that would hold the parameter itself, and its gradient.
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch__reinterpret_tensor(tensor_.get(), tensor_.dim(), tensor_.sizes().data(),
                                     tensor_.strides().data(), tensor_.storage_offset(), &handle));
  return std::make_shared<const RetainedTensor>(handle);
}

std::optional<std::int64_t> version_or_none(const Tensor& tensor) {
  return counts_versions(tensor) ? version_of(tensor) : std::nullopt;
}

// A copy made for its layout is a new tensor at every call: only its content tells anything.
FloatWeight::FloatWeight(const Tensor& weight, bool training)
    : dense_(as_contiguous(weight, "weight")), storage_(weight) {
  check_matrix(weight, "weight");
  const bool copied = dense_.get() != weight.get();
  source_ = {.data = data_of(dense_, "weight"),
             .type = require_float(weight, "weight"),
             .outputs = static_cast<std::uint64_t>(weight.size(0)),
             .depth = static_cast<std::uint64_t>(weight.size(1)),
             .owner = copied ? nullptr : &storage_};
  if (!copied) {
    runtime::mark_changes(
        source_, [&] { return counts_versions(weight); }, [&] { return version_of(weight); });
  }
  source_.by_content |= copied || training;
}

// Scales as the library takes them: fp64 values, one or one an output.
std::vector<double> scale_values(const Tensor& scale, std::int64_t outputs) {
  check(scale.numel() == 1 || scale.numel() == outputs, "tfmbs: scale must hold 1 or ", outputs,
        " values, but holds ", scale.numel());
  return vector_values(scale, "scale", static_cast<std::size_t>(scale.numel()));
}

TritWeights trit_weights(const Tensor& weight, const Tensor& trits, const Tensor& scale) {
  check_matrix(trits, "trits");
  check(trits.scalar_type() == ScalarType::Char, "tfmbs: trits must be int8");
  check_matrix(weight, "weight");
  if (weight.size(0) != trits.size(0) || weight.size(1) != trits.size(1)) {
    const auto shape = [](const Tensor& matrix) {
      return std::to_string(matrix.size(0)) + " x " + std::to_string(matrix.size(1));
    };
    raise({ErrorCode::kInvalidArgument,
           "a weight of " + shape(weight) + " needs as many trits, and was given " + shape(trits)});
  }
  const auto outputs = static_cast<std::size_t>(trits.size(0));
  const auto depth = static_cast<std::size_t>(trits.size(1));
  TritWeights made{as_contiguous(trits, "trits"),
                   scale_values(scale, trits.size(0)),
                   std::vector<std::uint8_t>(outputs),
                   {}};
  // The trits cannot say where the weight was no number.
  const Tensor dense = as_contiguous(weight, "weight");
  BitPlaneMatrix planes(outputs, depth);
  kernels::active().ternarize({.input = data_of(dense, "weight"),
                               .type = require_float(weight, "weight"),
                               .rows = outputs,
                               .columns = depth,
                               .row_stride = depth,
                               .thresholds = nullptr,
                               .planes = planes.data(),
                               .nan_rows = made.nan_outputs.data()});
  made.source = {.trits = static_cast<const std::int8_t*>(data_of(made.trits, "trits")),
                 .outputs = outputs,
                 .depth = depth,
                 .scales = made.scales.data(),
                 .scale_count = made.scales.size(),
                 .nan_outputs = made.nan_outputs.data()};
  return made;
}

}  // namespace tfmbs::torch_ops
