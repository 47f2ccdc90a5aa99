// The one builder of a linear call: the torch op, the direct call and the C interface fill plain
// views of tensors, and each check and its message stands here once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "tfmbs/format/error.hpp"
#include "tfmbs/kernels/kernels.hpp"
#include "tfmbs/linear/linear_args.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::runtime {

// A borrowed tensor. Row-major and contiguous unless `strides` are given.
struct TensorView {
  const void* data{nullptr};                 // the first element
  std::optional<kernels::FloatType> type{};  // none: not a float that the library computes with
  std::size_t element_bytes{0};              // 0: as the type says
  std::span<const std::int64_t> sizes{};
  std::span<const std::int64_t> strides{};  // in elements; empty: contiguous
  // Bytes from `data` to the end of its storage; none: the caller vouches for them.
  std::optional<std::uint64_t> held{};
};

// Whether a tensor's memory is there: storage that was freed or shrunk leaves a tensor its sizes.
// Errors: kInvalidArgument; `what` names the tensor.
Status check_memory(const TensorView& tensor, std::string_view what);

// input [..., depth], weight [outputs, depth], bias [outputs].
struct LinearRequest {
  TensorView input{};
  TensorView weight{};  // its sizes and type alone are looked at
  std::optional<TensorView> bias{};
  // Autocast's: the output's type, whatever the operands' are. None: all are of one type.
  std::optional<kernels::FloatType> out_type{};
  bool wide_bias{false};  // a bias of any float type, whatever the others are
  bool relu{false};
};

struct LinearCall {
  linear::LinearArgs args{};  // without an output
  std::uint64_t outputs{0};
  std::uint64_t depth{0};
  std::uint64_t output_bytes{0};
};

// Errors: kInvalidArgument, in torch's words where nn.Linear has them.
Result<LinearCall> build_call(const LinearRequest& request);

}  // namespace tfmbs::runtime

#pragma GCC visibility pop
