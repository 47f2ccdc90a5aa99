#include "tensors.hpp"

#include <cstring>

#include "errors.hpp"

namespace tfmbs::torch_ops {

using kernels::FloatType;

std::optional<FloatType> float_type(ScalarType type) noexcept {
  switch (type) {
    case ScalarType::Float:
      return FloatType::kFloat32;
    case ScalarType::Double:
      return FloatType::kFloat64;
    case ScalarType::BFloat16:
      return FloatType::kBFloat16;
    case ScalarType::Half:
      return FloatType::kFloat16;
    default:
      return std::nullopt;
  }
}

FloatType require_float(const Tensor& tensor, const char* what) {
  const auto type = float_type(tensor.scalar_type());
  check(type.has_value(), "tfmbs: ", what, " must be float32, float64, bfloat16 or float16");
  return *type;
}

runtime::TensorView view_of(const Tensor& tensor) {
  std::int64_t held = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &held));
  const auto before = static_cast<std::uint64_t>(tensor.storage_offset()) *
                      static_cast<std::uint64_t>(tensor.element_size());
  const auto bytes = static_cast<std::uint64_t>(held);
  const auto dimensions = static_cast<std::size_t>(tensor.dim());
  return {.data = tensor.const_data_ptr(),
          .type = float_type(tensor.scalar_type()),
          .element_bytes = static_cast<std::size_t>(tensor.element_size()),
          .sizes = {tensor.sizes().data(), dimensions},
          .strides = {tensor.strides().data(), dimensions},
          .held = bytes > before ? bytes - before : 0};
}

const void* data_of(const Tensor& tensor, const char* what) {
  const runtime::TensorView view = view_of(tensor);
  require_operands(runtime::check_memory(view, what));
  return view.data;
}

Tensor as_contiguous(const Tensor& tensor, const char* what) {
  if (tensor.is_contiguous()) return tensor;
  static_cast<void>(data_of(tensor, what));
  return torch::stable::contiguous(tensor);
}

Tensor empty(const Extents& sizes, ScalarType type) {
  Extents strides(sizes.size());
  std::int64_t stride = 1;
  for (std::size_t i = strides.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= sizes[i] > 0 ? sizes[i] : 1;
  }
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<std::int64_t>(sizes.size()), sizes.data(), strides.data(),
      torch::stable::detail::to<std::int32_t>(torch::stable::detail::from(type)),
      aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

Tensor scale_tensor(const double* values, const Extents& sizes, bool wide) {
  Tensor scale = empty(sizes, wide ? ScalarType::Double : ScalarType::Float);
  void* out = scale.mutable_data_ptr();
  for (std::int64_t i = 0; i < scale.numel(); ++i) {
    if (wide) {
      static_cast<double*>(out)[i] = values[i];
    } else {
      static_cast<float*>(out)[i] = static_cast<float>(values[i]);
    }
  }
  return scale;
}

std::vector<double> vector_values(const Tensor& tensor, const char* what, std::size_t count) {
  check(static_cast<std::size_t>(tensor.numel()) == count, "tfmbs: ", what, " must hold ", count,
        " values, but holds ", tensor.numel());
  const Tensor dense = as_contiguous(tensor, what);
  if (tensor.scalar_type() == ScalarType::Double) {
    const auto* values = static_cast<const double*>(data_of(dense, what));
    return {values, values + count};
  }
  check(tensor.scalar_type() == ScalarType::Float, "tfmbs: ", what, " must be float32 or float64");
  const auto* values = static_cast<const float*>(data_of(dense, what));
  return {values, values + count};
}

void check_matrix(const Tensor& weight, const char* what) {
  check(weight.dim() == 2, "tfmbs: ", what,
        " must be a matrix, out_features x in_features, but has ", weight.dim(), " dimensions");
}

std::string_view identity_text(const Tensor& identity) {
  check(
      identity.scalar_type() == ScalarType::Byte && identity.dim() == 1 && identity.is_contiguous(),
      "tfmbs: identity must be a contiguous vector of uint8");
  const auto* text = static_cast<const char*>(data_of(identity, "identity"));
  return {text, strnlen(text, static_cast<std::size_t>(identity.numel()))};
}

}  // namespace tfmbs::torch_ops
