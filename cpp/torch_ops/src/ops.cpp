// The torch ops, namespace `tfmbs`. This folder alone sees torch, through the LibTorch stable ABI.
// Fakes, autograd and effects are registered in python/pytfmbs/ops/torch_ops.py. An op carries no
// handle: `layer` is a layer specification as text (tfmbs/runtime/layer_spec.hpp).
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <vector>

#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/format/large_memory.hpp"
#include "tfmbs/kernels/kernels.hpp"
#include "tfmbs/runtime/layer_registry.hpp"
#include "tfmbs/runtime/quantized_weights.hpp"
#include "torch_executor.hpp"

namespace {

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

}  // namespace

template <>
struct torch::stable::detail::ToImpl<Text> {
  static Text call(StableIValue value, std::uint64_t /*extension_build_version*/,
                   bool /*is_internal*/) {
    return Text(to<StringHandle>(value));
  }
};

namespace {

using tfmbs::kernels::FloatType;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// --- errors ------------------------------------------------------------------------------------

// torch knows only RuntimeError here; Python reads the code in brackets and raises the class of
// pytfmbs.FabricError that it stands for (python/pytfmbs/errors.py).
[[noreturn]] void raise(const tfmbs::Error& error) {
  throw std::runtime_error(std::string("[tfmbs:") + tfmbs::error_code_name(error.code) + "] " +
                           error.message);
}

// torch's own macro would begin the message with a path of the machine that compiled it.
template <typename... Parts>
void check(bool holds, const Parts&... parts) {
  if (holds) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

void require(const tfmbs::Status& status) {
  if (!status) raise(status.error());
}

template <typename T>
T require(tfmbs::Result<T> result) {
  if (!result) raise(result.error());
  return std::move(result).value();
}

// --- torch's side of the runtime's interfaces ----------------------------------------------------

template <typename Out>
Out call_unary(const char* name, const Tensor& tensor) {
  StableIValue stack[1] = {torch::stable::detail::from(tensor)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, "", stack, TORCH_ABI_VERSION));
  return torch::stable::detail::to<Out>(stack[0]);
}

// Another tensor of the same storage: holding it keeps the storage's address from being used again,
// even after `parameter.data = other`, which swaps storages in place.
class RetainedTensor final : public tfmbs::runtime::RetainedStorage {
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

class TensorStorage final : public tfmbs::runtime::StorageOwner {
 public:
  explicit TensorStorage(const Tensor& tensor) : tensor_(tensor) {}
  [[nodiscard]] std::shared_ptr<const tfmbs::runtime::RetainedStorage> retain() const override {
    // Not a view in autograd's sense: that would hold the parameter itself, and its gradient.
    AtenTensorHandle handle = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch__reinterpret_tensor(
        tensor_.get(), tensor_.dim(), tensor_.sizes().data(), tensor_.strides().data(),
        tensor_.storage_offset(), &handle));
    return std::make_shared<const RetainedTensor>(handle);
  }

 private:
  const Tensor& tensor_;
};

std::optional<FloatType> float_type(ScalarType type) {
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

// A tensor's memory, if its storage has all of it: one that was freed (FSDP does) or shrunk leaves
// the tensor its sizes.
const void* data_of(const Tensor& tensor, const char* what) {
  const void* data = tensor.const_data_ptr();
  if (tensor.numel() == 0) return data;
  check(data != nullptr, "tfmbs: ", what,
        " has no memory: its storage was freed or was never allocated");
  std::int64_t held = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &held));
  std::int64_t elements = tensor.storage_offset() + 1;  // up to the last
  for (std::int64_t i = 0; i < tensor.dim(); ++i)
    elements += (tensor.size(i) - 1) * tensor.stride(i);
  const std::int64_t needed = elements * static_cast<std::int64_t>(tensor.element_size());
  check(held >= needed, "tfmbs: ", what, " needs a storage of ", needed,
        " bytes, and its storage was shrunk to ", held);
  return data;
}

// torch copies without asking whether the memory is there.
Tensor as_contiguous(const Tensor& tensor, const char* what) {
  if (tensor.is_contiguous()) return tensor;
  static_cast<void>(data_of(tensor, what));
  return torch::stable::contiguous(tensor);
}

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

void check_matrix(const Tensor& weight, const char* what) {
  check(weight.dim() == 2, "tfmbs: ", what,
        " must be a matrix, out_features x in_features, but has ", weight.dim(), " dimensions");
}

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

// The weights of one op call. `contiguous_weight` must live as long as the source.
tfmbs::runtime::WeightSource weight_source(const Tensor& weight, const Tensor& contiguous_weight,
                                           const TensorStorage& storage, bool training) {
  // A copy made for its layout is a new tensor at every call: only its content tells anything.
  const bool copied = contiguous_weight.get() != weight.get();
  const FloatType type = require_float(weight, "weight");
  const auto outputs = static_cast<std::uint64_t>(weight.size(0));
  const auto depth = static_cast<std::uint64_t>(weight.size(1));
  tfmbs::runtime::WeightSource source{.data = data_of(contiguous_weight, "weight"),
                                      .type = type,
                                      .outputs = outputs,
                                      .depth = depth,
                                      .owner = copied ? nullptr : &storage};
  if (!copied) {
    tfmbs::runtime::mark_changes(
        source, [&] { return counts_versions(weight); }, [&] { return version_of(weight); });
  }
  source.by_content |= copied || training;
  return source;
}

// Scales as the runtime takes them: fp64 values, one or one an output.
std::vector<double> scale_values(const Tensor& scale, std::int64_t outputs) {
  check(scale.numel() == 1 || scale.numel() == outputs, "tfmbs: scale must hold 1 or ", outputs,
        " values, but holds ", scale.numel());
  const Tensor dense = as_contiguous(scale, "scale");
  const auto count = static_cast<std::size_t>(scale.numel());
  if (scale.scalar_type() == ScalarType::Double) {
    const auto* values = static_cast<const double*>(data_of(dense, "scale"));
    return {values, values + count};
  }
  check(scale.scalar_type() == ScalarType::Float, "tfmbs: scale must be float32 or float64");
  const auto* values = static_cast<const float*>(data_of(dense, "scale"));
  return {values, values + count};
}

struct LinearCall {
  Tensor input;  // contiguous
  std::optional<Tensor> bias;
  Tensor output;
  tfmbs::runtime::LinearArgs args;
};

LinearCall prepare(const Tensor& input, std::int64_t outputs, std::int64_t depth,
                   const std::optional<Tensor>& bias, std::optional<ScalarType> out_dtype) {
  check(input.dim() >= 1, "tfmbs: input needs at least one dimension");
  const std::int64_t features = input.size(input.dim() - 1);
  check(features == depth, "tfmbs: input has ", features,
        " features in its last dimension, but the weight has ", depth);
  const ScalarType out_type = out_dtype.value_or(input.scalar_type());
  Extents sizes = Extents::copy_of(input.sizes());
  std::size_t samples = 1;
  for (std::size_t i = 0; i + 1 < sizes.size(); ++i) samples *= static_cast<std::size_t>(sizes[i]);
  sizes.back() = outputs;

  LinearCall call{as_contiguous(input, "input"), std::nullopt, empty(sizes, out_type), {}};
  call.args.input = data_of(call.input, "input");
  call.args.input_type = require_float(input, "input");
  call.args.samples = samples;
  if (bias) {
    check(bias->dim() == 1 && bias->size(0) == outputs, "tfmbs: bias must be a vector of ", outputs,
          " values");
    // Autocast leaves fp64 as it is.
    check(out_dtype.has_value() ? bias->scalar_type() != ScalarType::Double
                                : bias->scalar_type() == input.scalar_type(),
          "tfmbs: input and bias must have the same dtype");
    call.bias = as_contiguous(*bias, "bias");
    call.args.bias = data_of(*call.bias, "bias");
    call.args.bias_type = require_float(*bias, "bias");
  }
  call.args.output = call.output.mutable_data_ptr();
  call.args.output_type = require_float(call.output, "out_dtype");
  tfmbs::large_memory::prefer_huge_pages(call.args.output,
                                         samples * static_cast<std::size_t>(outputs) *
                                             tfmbs::kernels::float_bytes(call.args.output_type));
  return call;
}

// --- ops ---------------------------------------------------------------------------------------

// Calls something of a layer. Where another thread moves the layer meanwhile, its text finds the
// layer that took its place; what the handle is doing then takes microseconds.
template <typename Call>
auto on_layer(const Text& text, const Tensor& weight, const Call& call) {
  constexpr int kAttempts = 1000;
  for (int attempt = 1;; ++attempt) {
    const auto layer = require(tfmbs::runtime::LayerRegistry::instance().find_or_make(
        text.view(), static_cast<std::uint64_t>(weight.size(0)),
        static_cast<std::uint64_t>(weight.size(1))));
    // NOLINTNEXTLINE(misc-const-correctness): a Result is moved from
    auto outcome = call(*layer);
    const bool moved = !outcome && outcome.error().code == tfmbs::ErrorCode::kGone;
    if (!moved || attempt == kAttempts) return require(std::move(outcome));
    std::this_thread::yield();
  }
}

template <bool kRelu>
Tensor linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
              const Text& layer, bool training, std::optional<ScalarType> out_dtype) {
  check_matrix(weight, "weight");
  check(out_dtype.has_value() || input.scalar_type() == weight.scalar_type(),
        "tfmbs: input and weight must have the same dtype");
  LinearCall call = prepare(input, weight.size(0), weight.size(1), bias, out_dtype);
  call.args.relu = kRelu;
  const Tensor dense = as_contiguous(weight, "weight");
  const TensorStorage storage(weight);
  const auto source = weight_source(weight, dense, storage, training);
  on_layer(layer, weight, [&](tfmbs::runtime::Layer& found) {
    return found.forward(source, call.args, tfmbs::TorchExecutor{});
  });
  return call.output;
}

// Trits that a quantizer in Python made of `weight`. What the source points to is held here.
struct TritWeights {
  Tensor trits;  // contiguous
  std::vector<double> scales;
  std::vector<std::uint8_t> nan_outputs;
  tfmbs::runtime::TritSource source;
};

TritWeights trit_weights(const Tensor& weight, const Tensor& trits, const Tensor& scale) {
  check_matrix(trits, "trits");
  check(trits.scalar_type() == ScalarType::Char, "tfmbs: trits must be int8");
  check_matrix(weight, "weight");
  if (weight.size(0) != trits.size(0) || weight.size(1) != trits.size(1)) {
    const auto shape = [](const Tensor& matrix) {
      return std::to_string(matrix.size(0)) + " x " + std::to_string(matrix.size(1));
    };
    raise({tfmbs::ErrorCode::kInvalidArgument,
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
  tfmbs::BitPlaneMatrix planes(outputs, depth);
  tfmbs::kernels::active().ternarize({.input = data_of(dense, "weight"),
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

Tensor linear_trits(const Tensor& input, const Tensor& weight, const Tensor& trits,
                    const Tensor& scale, const std::optional<Tensor>& bias, const Text& layer,
                    std::optional<ScalarType> out_dtype) {
  const TritWeights weights = trit_weights(weight, trits, scale);
  const LinearCall call = prepare(input, trits.size(0), trits.size(1), bias, out_dtype);
  on_layer(layer, trits, [&](tfmbs::runtime::Layer& found) {
    return found.forward(weights.source, call.args, tfmbs::TorchExecutor{});
  });
  return call.output;
}

bool prefetch(const Tensor& weight, const Text& layer, bool training) {
  check_matrix(weight, "weight");
  const Tensor dense = as_contiguous(weight, "weight");
  const TensorStorage storage(weight);
  const auto source = weight_source(weight, dense, storage, training);
  return on_layer(layer, weight, [&](tfmbs::runtime::Layer& found) {
    return found.prefetch(source, tfmbs::TorchExecutor{});
  });
}

bool prefetch_trits(const Tensor& weight, const Tensor& trits, const Tensor& scale,
                    const Text& layer) {
  const TritWeights weights = trit_weights(weight, trits, scale);
  return on_layer(layer, trits, [&](tfmbs::runtime::Layer& found) {
    return found.prefetch(weights.source, tfmbs::TorchExecutor{});
  });
}

// A vector of scales in fp32, or fp64 for fp64 weights or inputs.
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

std::tuple<Tensor, Tensor> quantize_weight(const Tensor& weight, const Text& quantizer) {
  check_matrix(weight, "weight");
  const auto kind = require(tfmbs::runtime::parse_weight_quantizer(quantizer.view()));
  check(kind != tfmbs::runtime::WeightQuantizer::kCustom,
        "tfmbs: a custom quantizer is called in Python");
  const Tensor dense = as_contiguous(weight, "weight");
  const FloatType type = require_float(weight, "weight");
  const auto packed =
      tfmbs::runtime::quantize_weights({.data = data_of(dense, "weight"),
                                        .type = type,
                                        .outputs = static_cast<std::uint64_t>(weight.size(0)),
                                        .depth = static_cast<std::uint64_t>(weight.size(1))},
                                       kind, tfmbs::TorchExecutor{});
  Tensor trits = empty({weight.size(0), weight.size(1)}, ScalarType::Char);
  require(tfmbs::unpack_bit_planes(packed.planes.view(),
                                   {static_cast<std::int8_t*>(trits.mutable_data_ptr()),
                                    static_cast<std::size_t>(trits.numel())}));
  const std::vector<double> one{1.0};
  const std::vector<double>& scales = packed.scales.empty() ? one : packed.scales;
  const bool each = kind == tfmbs::runtime::WeightQuantizer::kTwn;
  return {trits,
          scale_tensor(scales.data(), {each ? weight.size(0) : 1}, type == FloatType::kFloat64)};
}

std::tuple<Tensor, Tensor> quantize_activation(const Tensor& input, const Text& activation) {
  check(input.dim() >= 1, "tfmbs: input needs at least one dimension");
  const auto kind = require(tfmbs::runtime::parse_activation(activation.view()));
  const FloatType type = require_float(input, "input");
  const Tensor dense = as_contiguous(input, "input");
  Extents sizes = Extents::copy_of(input.sizes());
  const auto depth = static_cast<std::size_t>(sizes.back());
  std::size_t samples = 1;
  for (std::size_t i = 0; i + 1 < sizes.size(); ++i) samples *= static_cast<std::size_t>(sizes[i]);
  Tensor values = empty(sizes, ScalarType::Char);
  sizes.back() = 1;

  std::vector<double> scales(samples, 1.0);
  std::vector<std::uint8_t> nan_rows(samples);
  auto* out = static_cast<std::int8_t*>(values.mutable_data_ptr());
  if (kind == tfmbs::runtime::Activation::kTernary) {
    tfmbs::BitPlaneMatrix planes(samples, depth);
    tfmbs::kernels::active().ternarize({.input = data_of(dense, "input"),
                                        .type = type,
                                        .rows = samples,
                                        .columns = depth,
                                        .row_stride = depth,
                                        .thresholds = nullptr,
                                        .planes = planes.data(),
                                        .nan_rows = nan_rows.data()});
    require(tfmbs::unpack_bit_planes(planes.view(), {out, samples * depth}));
  } else {
    tfmbs::BitPlaneMatrix planes(samples * tfmbs::kernels::kInt8Planes, depth);
    tfmbs::kernels::active().quantize_int8({.input = data_of(dense, "input"),
                                            .type = type,
                                            .rows = samples,
                                            .columns = depth,
                                            .row_stride = depth,
                                            .planes = planes.data(),
                                            .plane_stride = samples * planes.row_words(),
                                            .values = out,
                                            .scales = scales.data(),
                                            .nan_rows = nan_rows.data()});
  }
  return {values, scale_tensor(scales.data(), sizes, type == FloatType::kFloat64)};
}

}  // namespace

STABLE_TORCH_LIBRARY(tfmbs, m) {
  static const auto* const executor = new tfmbs::TorchExecutor;  // outlives every thread
  tfmbs::runtime::set_process_executor(*executor);
  m.def(
      "linear(Tensor input, Tensor weight, Tensor? bias, str layer, bool training, "
      "ScalarType? out_dtype=None) -> Tensor");
  m.def(
      "linear_relu(Tensor input, Tensor weight, Tensor? bias, str layer, bool training, "
      "ScalarType? out_dtype=None) -> Tensor");
  m.def(
      "linear_trits(Tensor input, Tensor weight, Tensor trits, Tensor scale, Tensor? bias, "
      "str layer, ScalarType? out_dtype=None) -> Tensor");
  m.def("prefetch(Tensor weight, str layer, bool training) -> bool");
  m.def("prefetch_trits(Tensor weight, Tensor trits, Tensor scale, str layer) -> bool");
  m.def("quantize_weight(Tensor weight, str quantizer) -> (Tensor trits, Tensor scale)");
  m.def("quantize_activation(Tensor input, str activation) -> (Tensor values, Tensor scale)");
}

STABLE_TORCH_LIBRARY_IMPL(tfmbs, CPU, m) {
  m.impl("linear", TORCH_BOX(&linear<false>));
  m.impl("linear_relu", TORCH_BOX(&linear<true>));
  m.impl("linear_trits", TORCH_BOX(&linear_trits));
  m.impl("prefetch", TORCH_BOX(&prefetch));
  m.impl("prefetch_trits", TORCH_BOX(&prefetch_trits));
  m.impl("quantize_weight", TORCH_BOX(&quantize_weight));
  m.impl("quantize_activation", TORCH_BOX(&quantize_activation));
}
