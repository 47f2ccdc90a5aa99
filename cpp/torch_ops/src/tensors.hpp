// torch's tensors and strings as the library's views.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "tfmbs/kernels/kernels.hpp"
#include "tfmbs/runtime/call.hpp"

namespace tfmbs::torch_ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// A string argument of an op, which torch holds. As std::string, torch's own conversion (2.10 to
// 2.13 at least) leaks a copy of it at every call.
class Text {
 public:
  explicit Text(StringHandle handle) : handle_(handle) {
    std::size_t length = 0;
    const char* data = nullptr;
    TORCH_ERROR_CODE_CHECK(torch_string_length(handle, &length));
    TORCH_ERROR_CODE_CHECK(torch_string_c_str(handle, &data));
    view_ = {data, length};
  }
  [[nodiscard]] std::string_view view() const noexcept { return view_; }

 private:
  struct Delete {
    using pointer = StringHandle;
    void operator()(StringHandle handle) const noexcept {
      static_cast<void>(torch_delete_string(handle));
    }
  };
  std::unique_ptr<StringHandle, Delete> handle_;
  std::string_view view_;
};

template <typename Out>
Out call_unary(const char* name, const Tensor& tensor) {
  StableIValue stack[1] = {torch::stable::detail::from(tensor)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, "", stack, TORCH_ABI_VERSION));
  return torch::stable::detail::to<Out>(stack[0]);
}

[[nodiscard]] std::optional<kernels::FloatType> float_type(ScalarType type) noexcept;
kernels::FloatType require_float(const Tensor& tensor, const char* what);

// A view with its strides and what its storage holds. The tensor must outlive it.
[[nodiscard]] runtime::TensorView view_of(const Tensor& tensor);
// A tensor's memory, if its storage has all of it.
const void* data_of(const Tensor& tensor, const char* what);
// torch copies without asking whether the memory is there; this does.
Tensor as_contiguous(const Tensor& tensor, const char* what);
void check_matrix(const Tensor& weight, const char* what);

// Sizes or strides, without an allocation up to `kInline` dimensions.
class Extents {
 public:
  explicit Extents(std::size_t count) : count_(count) {
    if (count > kInline) more_.resize(count);
  }
  template <typename Range>
  static Extents copy_of(const Range& values) {
    Extents made(values.size());
    std::copy(values.begin(), values.end(), made.data());
    return made;
  }
  Extents(std::initializer_list<std::int64_t> values) : Extents(values.size()) {
    std::copy(values.begin(), values.end(), data());
  }
  [[nodiscard]] std::size_t size() const noexcept { return count_; }
  [[nodiscard]] std::int64_t* data() noexcept { return count_ > kInline ? more_.data() : few_; }
  [[nodiscard]] const std::int64_t* data() const noexcept {
    return count_ > kInline ? more_.data() : few_;
  }
  [[nodiscard]] std::int64_t& operator[](std::size_t i) noexcept { return data()[i]; }
  [[nodiscard]] std::int64_t operator[](std::size_t i) const noexcept { return data()[i]; }
  [[nodiscard]] std::int64_t& back() noexcept { return data()[count_ - 1]; }

 private:
  static constexpr std::size_t kInline = 6;
  std::size_t count_;
  std::int64_t few_[kInline];
  std::vector<std::int64_t> more_;
};

[[nodiscard]] Tensor empty(const Extents& sizes, ScalarType type);

// A tensor of scales in fp32, or fp64 for fp64 weights or inputs.
[[nodiscard]] Tensor scale_tensor(const double* values, const Extents& sizes, bool wide);
// The values of a tensor of fp32 or fp64 that holds `count` of them.
[[nodiscard]] std::vector<double> vector_values(const Tensor& tensor, const char* what,
                                                std::size_t count);

// The text of a layer's identity: uint8, up to the first zero byte. The tensor must outlive it.
[[nodiscard]] std::string_view identity_text(const Tensor& identity);

}  // namespace tfmbs::torch_ops

template <>
struct torch::stable::detail::ToImpl<tfmbs::torch_ops::Text> {
  static tfmbs::torch_ops::Text call(StableIValue value, std::uint64_t /*extension_build_version*/,
                                     bool /*is_internal*/) {
    return tfmbs::torch_ops::Text(to<StringHandle>(value));
  }
};
