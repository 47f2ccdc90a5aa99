#include "tfmbs/runtime/call.hpp"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

namespace tfmbs::runtime {
namespace {

using kernels::FloatType;

Error refuse(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

// Elements up to the last one. Precondition: no size is 0.
std::uint64_t reach(const TensorView& tensor) noexcept {
  std::int64_t elements = 1;
  if (tensor.strides.empty()) {
    for (const std::int64_t size : tensor.sizes) elements *= size;
  } else {
    for (std::size_t i = 0; i < tensor.sizes.size(); ++i) {
      elements += (tensor.sizes[i] - 1) * tensor.strides[i];
    }
  }
  return static_cast<std::uint64_t>(elements);
}

Status check_type(const TensorView& tensor, std::string_view what) {
  if (tensor.type) return {};
  return refuse(std::string(what) + " must be float32, float64, bfloat16 or float16");
}

// Bytes of a matrix, or none where there can be none.
std::optional<std::uint64_t> matrix_bytes(std::uint64_t rows, std::uint64_t columns,
                                          FloatType type) noexcept {
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::ptrdiff_t>::max());
  if (columns != 0 && rows > kMost / columns / kernels::float_bytes(type)) return std::nullopt;
  return rows * columns * kernels::float_bytes(type);
}

Error too_large(std::string_view what, std::uint64_t rows, std::uint64_t columns) {
  return refuse(std::string(what) + " of " + std::to_string(rows) + " x " +
                std::to_string(columns) + " values fits in no memory");
}

Status check_bias(const LinearRequest& request, std::int64_t outputs) {
  const TensorView& bias = *request.bias;
  if (bias.sizes.size() != 1 || bias.sizes[0] != outputs) {
    return refuse("bias must be a vector of " + std::to_string(outputs) + " values");
  }
  if (auto s = check_type(bias, "bias"); !s) return s;
  // Autocast leaves fp64 as it is.
  const bool fits = request.wide_bias || (request.out_type ? *bias.type != FloatType::kFloat64
                                                           : *bias.type == *request.input.type);
  if (!fits) return refuse("input and bias must have the same dtype");
  return check_memory(bias, "bias");
}

}  // namespace

Status check_memory(const TensorView& tensor, std::string_view what) {
  if (std::ranges::find(tensor.sizes, 0) != tensor.sizes.end()) return {};
  if (tensor.data == nullptr) {
    return refuse(std::string(what) +
                  " has no memory: its storage was freed or was never allocated");
  }
  if (!tensor.held) return {};
  const std::size_t element = tensor.element_bytes != 0
                                  ? tensor.element_bytes
                                  : kernels::float_bytes(tensor.type.value_or(FloatType::kFloat32));
  const std::uint64_t needed = reach(tensor) * element;
  if (*tensor.held >= needed) return {};
  return refuse(std::string(what) + " needs a storage of " + std::to_string(needed) +
                " bytes, and its storage was shrunk to " + std::to_string(*tensor.held));
}

Result<LinearCall> build_call(const LinearRequest& request) {
  const TensorView& input = request.input;
  const TensorView& weight = request.weight;
  if (weight.sizes.size() != 2) {
    return refuse("weight must be a matrix, out_features x in_features, but has " +
                  std::to_string(weight.sizes.size()) + " dimensions");
  }
  if (input.sizes.empty()) return refuse("input needs at least one dimension");
  const std::int64_t outputs = weight.sizes[0];
  const std::int64_t depth = weight.sizes[1];
  if (input.sizes.back() != depth) {
    return refuse("input has " + std::to_string(input.sizes.back()) +
                  " features in its last dimension, but the weight has " + std::to_string(depth));
  }
  if (auto s = check_type(input, "input"); !s) return std::move(s).error();
  if (auto s = check_type(weight, "weight"); !s) return std::move(s).error();
  if (!request.out_type && *input.type != *weight.type) {
    return refuse("input and weight must have the same dtype");
  }
  if (request.bias) {
    if (auto s = check_bias(request, outputs); !s) return std::move(s).error();
  }
  LinearCall call;
  call.outputs = static_cast<std::uint64_t>(outputs);
  call.depth = static_cast<std::uint64_t>(depth);
  std::uint64_t samples = 1;
  for (const std::int64_t size : input.sizes.first(input.sizes.size() - 1)) {
    samples *= static_cast<std::uint64_t>(size);
  }
  const FloatType out_type = request.out_type.value_or(*input.type);
  if (!matrix_bytes(samples, call.depth, *input.type)) {
    return too_large("an input", samples, call.depth);
  }
  const auto output_bytes = matrix_bytes(samples, call.outputs, out_type);
  if (!output_bytes) return too_large("an output", samples, call.outputs);
  if (auto s = check_memory(input, "input"); !s) return std::move(s).error();
  call.output_bytes = *output_bytes;
  call.args = {.input = input.data,
               .input_type = *input.type,
               .samples = static_cast<std::size_t>(samples),
               .bias = request.bias ? request.bias->data : nullptr,
               .bias_type = request.bias ? *request.bias->type : FloatType::kFloat32,
               .output = nullptr,
               .output_type = out_type,
               .relu = request.relu};
  return call;
}

}  // namespace tfmbs::runtime
