// Ops of training: what is kept of an input, and the straight-through gradients. All are pure. The
// float products are torch's own.
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "errors.hpp"
#include "gradients.hpp"
#include "layer_calls.hpp"
#include "tensors.hpp"
#include "tfmbs/format/large_memory.hpp"
#include "tfmbs/linear/gradients.hpp"
#include "tfmbs/linear/kept_activations.hpp"
#include "tfmbs/linear/quantized_weights.hpp"
#include "tfmbs/runtime/layer.hpp"
#include "torch_executor.hpp"
#include "weights.hpp"

namespace tfmbs::torch_ops {
namespace {

using kernels::FloatType;
using linear::FloatInput;
using linear::FloatOutput;
using linear::KeptLayout;

// torch's own product of matrices, with its number of threads.
class TorchProduct final : public linear::MatrixProduct {
 public:
  void multiply(const FloatInput& a, const FloatInput& b, const FloatOutput& c,
                bool add) const override {
    const Tensor left = borrow(a);
    const Tensor right = borrow(b);
    const Tensor out = borrow(c);
    if (add) {
      TORCH_ERROR_CODE_CHECK(
          aoti_torch_cpu_addmm_out(out.get(), out.get(), left.get(), right.get(), 1.0, 1.0));
    } else {
      TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_mm_out(out.get(), left.get(), right.get()));
    }
  }

 private:
  template <typename Pointer>
  static Tensor borrow(const linear::FloatMatrix<Pointer>& matrix) {
    const std::int64_t sizes[] = {static_cast<std::int64_t>(matrix.rows),
                                  static_cast<std::int64_t>(matrix.columns)};
    const std::int64_t strides[] = {static_cast<std::int64_t>(matrix.row_stride),
                                    static_cast<std::int64_t>(matrix.column_stride)};
    AtenTensorHandle handle = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_create_tensor_from_blob(
        const_cast<void*>(
            static_cast<const void*>(matrix.data)),  // torch has no tensor of constants
        2, sizes, strides, 0, matrix.wide ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32(),
        aoti_torch_device_type_cpu(), 0, &handle));
    return Tensor(handle);
  }
};

std::size_t samples_of(const Tensor& tensor) {
  std::size_t samples = 1;
  for (std::int64_t i = 0; i + 1 < tensor.dim(); ++i) {
    samples *= static_cast<std::size_t>(tensor.size(i));
  }
  return samples;
}

// The upstream gradient, [..., outputs], as a matrix.
struct Upstream {
  Upstream(const Tensor& grad, std::size_t outputs) : tensor(grad) {
    check(grad.dim() >= 1, "tfmbs: grad needs at least one dimension");
    check(static_cast<std::size_t>(grad.size(grad.dim() - 1)) == outputs, "tfmbs: grad has ",
          grad.size(grad.dim() - 1), " features; the weight has ", outputs);
    const bool wide = grad.scalar_type() == ScalarType::Double;
    check(wide || grad.scalar_type() == ScalarType::Float,
          "tfmbs: grad must be float32 or float64");
    const std::size_t rows = samples_of(grad);
    if (grad.dim() == 2 && grad.stride(0) == 1 &&
        grad.stride(1) >= std::max<std::int64_t>(1, grad.size(0))) {
      matrix = {nullptr, wide, rows, outputs, 1, static_cast<std::size_t>(grad.stride(1))};
    } else {
      tensor = as_contiguous(grad, "grad");
      matrix = {nullptr, wide, rows, outputs, outputs, 1};
    }
    matrix.data = data_of(tensor, "grad");
  }
  Tensor tensor;
  FloatInput matrix{};
};

// What was kept of an input.
struct Kept {
  Kept(const Tensor& kept, const Text& activation, bool values, bool window, std::size_t rows,
       std::size_t depth)
      : tensor(as_contiguous(kept, "kept")),
        layout(require(linear::parse_activation(activation.view())), values, window, depth) {
    check(kept.scalar_type() == ScalarType::Byte, "tfmbs: kept must be uint8");
    check(static_cast<std::size_t>(kept.numel()) == rows * layout.row_bytes(), "tfmbs: kept has ",
          kept.numel(), " bytes; ", rows, " rows of ", depth, " values take ",
          rows * layout.row_bytes());
    view = {&layout, static_cast<const std::uint8_t*>(data_of(tensor, "kept")), rows};
  }
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;
  Tensor tensor;
  KeptLayout layout;
  linear::KeptRows view{};
};

// The window as torch compares it: in the tensor's own type.
double rounded_clip(double clip, ScalarType type) {
  const auto single = static_cast<float>(clip);
  switch (type) {
    case ScalarType::Float:
      return single;
    case ScalarType::BFloat16:
      return static_cast<float>(torch::headeronly::BFloat16(single));
    case ScalarType::Half:
      return static_cast<float>(torch::headeronly::Half(single));
    default:
      return clip;
  }
}

Tensor kept_activation(const Tensor& input, const Text& activation, std::optional<double> ste_clip,
                       bool values) {
  check(input.dim() >= 1, "tfmbs: input needs at least one dimension");
  check(!ste_clip || *ste_clip >= 0, "tfmbs: ste_clip must not be negative");
  const FloatType type = require_float(input, "input");
  Extents sizes = Extents::copy_of(input.sizes());
  const auto depth = static_cast<std::size_t>(sizes.back());
  const KeptLayout layout(require(linear::parse_activation(activation.view())), values,
                          ste_clip.has_value(), depth);
  const Tensor dense = as_contiguous(input, "input");
  const auto* from = static_cast<const std::byte*>(data_of(dense, "input"));
  sizes.back() = static_cast<std::int64_t>(layout.row_bytes());
  Tensor kept = empty(sizes, ScalarType::Byte);
  auto* const to = static_cast<std::uint8_t*>(kept.mutable_data_ptr());
  const double clip = ste_clip ? rounded_clip(*ste_clip, input.scalar_type()) : 0.0;
  constexpr std::size_t kGrainValues = std::size_t{1} << 15;
  TorchExecutor{}.parallel_for(
      samples_of(input), 1 + kGrainValues / (depth + 1), [&](std::size_t begin, std::size_t end) {
        linear::keep_rows(layout,
                          {.input = from + begin * depth * kernels::float_bytes(type),
                           .type = type,
                           .rows = end - begin,
                           .clip = clip},
                          to + begin * layout.row_bytes());
      });
  return kept;
}

// x̂, or an empty tensor; and 1 inside and 0 outside of the window, or an empty tensor.
std::tuple<Tensor, Tensor> unkept(const Tensor& kept, const Text& activation, bool windowed,
                                  bool values, std::int64_t in_features, ScalarType dtype) {
  check(kept.dim() >= 1, "tfmbs: kept needs at least one dimension");
  check(in_features >= 0, "tfmbs: in_features must not be negative");
  const bool wide = dtype == ScalarType::Double;
  check(wide || dtype == ScalarType::Float, "tfmbs: dtype must be float32 or float64");
  const auto depth = static_cast<std::size_t>(in_features);
  const Kept held(kept, activation, values, windowed, samples_of(kept), depth);
  Extents sizes = Extents::copy_of(kept.sizes());
  sizes.back() = in_features;
  Tensor dequantized = empty(values ? sizes : Extents{0}, dtype);
  Tensor inside = empty(windowed ? sizes : Extents{0}, dtype);
  const auto fill = [&](auto* quantized, auto* factors) {
    for (std::size_t r = 0; r < held.view.rows && depth != 0; ++r) {
      if (values) dequantize_kept(held.view, r, 0, depth, quantized + r * depth);
      if (!windowed) continue;
      std::fill_n(factors + r * depth, depth, 1);
      apply_window(held.view, r, factors + r * depth);
    }
  };
  if (wide) {
    fill(static_cast<double*>(dequantized.mutable_data_ptr()),
         static_cast<double*>(inside.mutable_data_ptr()));
  } else {
    fill(static_cast<float*>(dequantized.mutable_data_ptr()),
         static_cast<float*>(inside.mutable_data_ptr()));
  }
  return {dequantized, inside};
}

}  // namespace

Tensor input_gradient_of(const Tensor& grad, const linear::TernaryWeights& weight,
                         const std::optional<Tensor>& kept, const Text& activation, bool values,
                         ScalarType dtype) {
  const Upstream upstream(grad, weight.outputs);
  const auto type = float_type(dtype);
  check(type.has_value() && (*type == FloatType::kFloat64) == upstream.matrix.wide,
        "tfmbs: the input's gradient is float64 where grad is, and else a smaller float");
  Extents sizes = Extents::copy_of(grad.sizes());
  sizes.back() = static_cast<std::int64_t>(weight.depth);
  Tensor out = empty(sizes, dtype);
  std::optional<Kept> window;
  if (kept) {
    window.emplace(*kept, activation, values, true, upstream.matrix.rows, weight.depth);
  }
  linear::input_gradient(upstream.matrix, weight, window ? &window->view : nullptr,
                         out.mutable_data_ptr(), *type, TorchProduct{}, TorchExecutor{});
  return out;
}

namespace {

Tensor input_gradient(const Tensor& grad, const Tensor& weight, const std::optional<Tensor>& kept,
                      const Tensor& identity, const Text& quantizer, const Text& activation,
                      bool values, ScalarType dtype) {
  const FloatWeight source(weight, false);
  const runtime::LayerKey key = key_of(identity, quantizer, activation);
  check(key.quantizer != linear::WeightQuantizer::kCustom,
        "tfmbs: a custom quantizer is called in Python");
  linear::TernaryWeights weights{.trits = BitPlaneView{},
                                 .outputs = static_cast<std::size_t>(source.source().outputs),
                                 .depth = static_cast<std::size_t>(source.source().depth)};
  // What the forward pass has packed, unless the layer has got other weights since.
  std::shared_ptr<const runtime::LayerWeights> packed;
  if (const auto layer = runtime::LayerRegistry::instance().find(key)) {
    packed = layer->packed_of(source.source());
  }
  linear::QuantizedWeights quantized;
  if (packed) {
    weights.trits = packed->packed().panels();
    weights.scales = packed->packed().scales();
  } else {
    quantized = linear::quantize_weights(source.source().floats(), key.quantizer, TorchExecutor{});
    weights.trits = quantized.planes.view();
    weights.scales = quantized.scales;
  }
  return input_gradient_of(grad, weights, kept, activation, values, dtype);
}

Tensor input_gradient_trits(const Tensor& grad, const Tensor& trits, const Tensor& scale,
                            const std::optional<Tensor>& kept, const Text& activation, bool values,
                            ScalarType dtype) {
  check_matrix(trits, "trits");
  check(trits.scalar_type() == ScalarType::Char, "tfmbs: trits must be int8");
  const Tensor dense = as_contiguous(trits, "trits");
  const std::vector<double> scales = scale_values(scale, trits.size(0));
  const linear::TernaryWeights weights{
      .trits = linear::TritMatrix{static_cast<const std::int8_t*>(data_of(dense, "trits"))},
      .outputs = static_cast<std::size_t>(trits.size(0)),
      .depth = static_cast<std::size_t>(trits.size(1)),
      .scales = scales};
  return input_gradient_of(grad, weights, kept, activation, values, dtype);
}

Tensor weight_gradient_of(const Tensor& grad, const Tensor& kept,
                          const linear::FloatWeights& source, ScalarType dtype,
                          const Text& activation, bool windowed) {
  const Upstream upstream(grad, source.outputs);
  check((source.type == FloatType::kFloat64) == upstream.matrix.wide,
        "tfmbs: grad is float64 where the weight is, and else float32");
  const Kept input(kept, activation, true, windowed, upstream.matrix.rows, source.depth);
  Tensor out = empty({static_cast<std::int64_t>(source.outputs),  //
                      static_cast<std::int64_t>(source.depth)},
                     dtype);
  large_memory::prefer_huge_pages(
      out.mutable_data_ptr(), source.outputs * source.depth * kernels::float_bytes(source.type));
  linear::weight_gradient(upstream.matrix, input.view, source, out.mutable_data_ptr(),
                          TorchProduct{}, TorchExecutor{});
  return out;
}

Tensor weight_gradient(const Tensor& grad, const Tensor& kept, const Tensor& weight,
                       const Text& activation, bool windowed) {
  check_matrix(weight, "weight");
  const Tensor dense = as_contiguous(weight, "weight");
  const linear::FloatWeights source{.data = data_of(dense, "weight"),
                                    .type = require_float(weight, "weight"),
                                    .outputs = static_cast<std::uint64_t>(weight.size(0)),
                                    .depth = static_cast<std::uint64_t>(weight.size(1))};
  return weight_gradient_of(grad, kept, source, weight.scalar_type(), activation, windowed);
}

// Of a weight that this process does not hold in floats: without its window.
Tensor weight_gradient_everywhere(const Tensor& grad, const Tensor& kept, std::int64_t out_features,
                                  std::int64_t in_features, ScalarType dtype,
                                  const Text& activation, bool windowed) {
  check(out_features >= 0 && in_features >= 0,
        "tfmbs: out_features and in_features must not be negative");
  const auto type = float_type(dtype);
  check(type.has_value(), "tfmbs: dtype must be float32, float64, bfloat16 or float16");
  const linear::FloatWeights source{.data = nullptr,
                                    .type = *type,
                                    .outputs = static_cast<std::uint64_t>(out_features),
                                    .depth = static_cast<std::uint64_t>(in_features)};
  return weight_gradient_of(grad, kept, source, dtype, activation, windowed);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(tfmbs, m) {
  m.def("kept_activation(Tensor input, str activation, float? ste_clip, bool values) -> Tensor");
  m.def(
      "unkept(Tensor kept, str activation, bool windowed, bool values, int in_features, "
      "ScalarType dtype) -> (Tensor quantized, Tensor inside)");
  m.def(
      "input_gradient(Tensor grad, Tensor weight, Tensor? kept, Tensor identity, str quantizer, "
      "str activation, bool values, ScalarType dtype) -> Tensor");
  m.def(
      "input_gradient_trits(Tensor grad, Tensor trits, Tensor scale, Tensor? kept, "
      "str activation, bool values, ScalarType dtype) -> Tensor");
  m.def(
      "weight_gradient(Tensor grad, Tensor kept, Tensor weight, str activation, bool windowed) -> "
      "Tensor");
  m.def(
      "weight_gradient_everywhere(Tensor grad, Tensor kept, int out_features, int in_features, "
      "ScalarType dtype, str activation, bool windowed) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(tfmbs, CPU, m) {
  m.impl("kept_activation", TORCH_BOX(&kept_activation));
  m.impl("unkept", TORCH_BOX(&unkept));
  m.impl("input_gradient", TORCH_BOX(&input_gradient));
  m.impl("input_gradient_trits", TORCH_BOX(&input_gradient_trits));
  m.impl("weight_gradient", TORCH_BOX(&weight_gradient));
  m.impl("weight_gradient_everywhere", TORCH_BOX(&weight_gradient_everywhere));
}

}  // namespace tfmbs::torch_ops
