#include "direct_forward.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "dlpack.hpp"
#include "tfmbs/format/large_memory.hpp"
#include "tfmbs/kernels/kernels.hpp"

namespace nb = nanobind;

namespace tfmbs::binding {
namespace {

using kernels::FloatType;

// Types and functions live as long as torch, which is never unloaded.
struct Torch {
  const dlpack::Exchange* exchange{nullptr};
  PyTypeObject* tensor{nullptr};
  PyTypeObject* parameter{nullptr};
  // Methods of a tensor. Called as functions, which spares half the call: a lookup through a type's
  // bases, and in a parameter's dictionary.
  PyObject* is_neg{nullptr};
  PyObject* is_inference{nullptr};
  PyObject* untyped_storage{nullptr};
  PyObject* storage_offset{nullptr};
  std::vector<PyObject*> questions;
};

Torch& known_torch() {
  static auto* const torch = new Torch;  // the interpreter may outlive static objects
  return *torch;
}

// What cannot be asked counts as somebody.
bool somebody_watches(const Torch& torch) {
  return std::any_of(torch.questions.begin(), torch.questions.end(), [](PyObject* question) {
    const auto answer = nb::steal(PyObject_CallNoArgs(question));
    const int yes = answer.is_none() ? 0 : answer.is_valid() ? PyObject_IsTrue(answer.ptr()) : -1;
    if (yes < 0) PyErr_Clear();
    return yes != 0;
  });
}

// A dense CPU tensor of floats.
struct Dense {
  const void* data;
  FloatType type;
  std::size_t dimensions;
  const std::int64_t* shape;
};

std::optional<FloatType> float_type(dlpack::DataType type) {
  if (type.lanes != 1) return std::nullopt;
  if (type.code == dlpack::kBFloat && type.bits == 16) return FloatType::kBFloat16;
  if (type.code != dlpack::kFloat) return std::nullopt;
  switch (type.bits) {
    case 16:
      return FloatType::kFloat16;
    case 32:
      return FloatType::kFloat32;
    case 64:
      return FloatType::kFloat64;
    default:
      return std::nullopt;
  }
}

bool is_row_major(const dlpack::Tensor& tensor) {
  if (tensor.strides == nullptr) return true;
  std::int64_t stride = 1;
  for (std::int32_t i = tensor.dimensions; i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != stride) return false;
    stride *= tensor.shape[i];
  }
  return true;
}

bool has_elements(const dlpack::Tensor& tensor) {
  return std::all_of(tensor.shape, tensor.shape + tensor.dimensions,
                     [](std::int64_t size) { return size != 0; });
}

// Whether the tensor's values are those of its memory, negated: DLPack would not say so.
bool is_negated(const Torch& torch, nb::handle object) {
  const auto negated = nb::steal(PyObject_CallOneArg(torch.is_neg, object.ptr()));
  if (!negated.is_valid()) PyErr_Clear();
  return !negated.is(nb::bool_(false));
}

// None for a tensor without memory, too: torch's zero tensors and functional wrappers are of the
// plain type.
std::optional<Dense> dense(const Torch& torch, nb::handle object, dlpack::Tensor& tensor) {
  if (is_negated(torch, object)) return std::nullopt;
  if (torch.exchange->from_object(object.ptr(), &tensor) != 0) {
    PyErr_Clear();
    return std::nullopt;
  }
  const auto type = float_type(tensor.type);
  if (tensor.device.type != dlpack::kCpu || !type || tensor.dimensions < 1 ||
      !is_row_major(tensor) || (tensor.data == nullptr && has_elements(tensor))) {
    return std::nullopt;
  }
  const auto* const memory = static_cast<const std::byte*>(tensor.data);
  return Dense{.data = memory == nullptr ? nullptr : memory + tensor.byte_offset,
               .type = *type,
               .dimensions = static_cast<std::size_t>(tensor.dimensions),
               .shape = tensor.shape};
}

std::size_t values_of(const Dense& tensor) {
  return std::transform_reduce(tensor.shape, tensor.shape + tensor.dimensions, std::size_t{1},
                               std::multiplies<>(),
                               [](std::int64_t size) { return static_cast<std::size_t>(size); });
}

// Whether the storage still holds the tensor: one that shrank leaves the sizes as they were, and
// DLPack does not say. An address proves nothing: memory that shrank, or that another tensor left,
// may lie at it. False where it cannot be told.
bool is_whole(const Torch& torch, nb::handle object, const Dense& tensor) {
  const auto storage = nb::steal(PyObject_CallOneArg(torch.untyped_storage, object.ptr()));
  const Py_ssize_t held = storage.is_valid() ? PyObject_Size(storage.ptr()) : -1;
  const auto offset =
      held >= 0 ? nb::steal(PyObject_CallOneArg(torch.storage_offset, object.ptr())) : nb::object();
  const Py_ssize_t first = offset.is_valid() ? PyLong_AsSsize_t(offset.ptr()) : -1;
  if (first < 0) {
    PyErr_Clear();
    return false;
  }
  const std::size_t values = static_cast<std::size_t>(held) / kernels::float_bytes(tensor.type);
  const auto before = static_cast<std::size_t>(first);
  return before <= values && values - before >= values_of(tensor);
}

struct Delete {
  void operator()(dlpack::ManagedTensor* tensor) const { tensor->deleter(tensor); }
};

// False: it cannot be told.
bool mark_changes(const Torch& torch, nb::handle weight, runtime::WeightSource& source) {
  static PyObject* const kVersion = PyUnicode_InternFromString("_version");
  bool told = true;
  runtime::mark_changes(
      source,
      [&] {
        const auto inference = nb::steal(PyObject_CallOneArg(torch.is_inference, weight.ptr()));
        told = inference.is_valid();
        return inference.is(nb::bool_(false));
      },
      [&]() -> std::optional<std::int64_t> {
        const auto version = nb::steal(PyObject_GetAttr(weight.ptr(), kVersion));
        const long long value = version.is_valid() ? PyLong_AsLongLong(version.ptr()) : -1;
        told = value >= 0;
        return told ? std::optional<std::int64_t>(value) : std::nullopt;
      });
  PyErr_Clear();
  return told;
}

}  // namespace

bool use_tensors(nb::handle tensor_type, nb::handle parameter_type, const nb::tuple& questions) {
  const nb::object capsule = nb::getattr(tensor_type, "__dlpack_c_exchange_api__", nb::none());
  if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return false;
  const auto* header = static_cast<const dlpack::ExchangeHeader*>(
      PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  while (header != nullptr && header->version.major > dlpack::kMajorVersion) {
    header = header->previous;
  }
  if (header == nullptr || header->version.major != dlpack::kMajorVersion) return false;
  const auto* exchange = reinterpret_cast<const dlpack::Exchange*>(header);
  if (exchange->from_object == nullptr || exchange->allocate == nullptr ||
      exchange->managed_to_object == nullptr) {
    return false;
  }
  const auto method = [&](const char* name) {
    return nb::getattr(tensor_type, name).release().ptr();
  };
  Torch torch{.exchange = exchange,
              .tensor = reinterpret_cast<PyTypeObject*>(tensor_type.ptr()),
              .parameter = reinterpret_cast<PyTypeObject*>(parameter_type.ptr()),
              .is_neg = method("is_neg"),
              .is_inference = method("is_inference"),
              .untyped_storage = method("untyped_storage"),
              .storage_offset = method("storage_offset"),
              .questions = {}};
  for (const nb::handle question : questions) torch.questions.push_back(question.inc_ref().ptr());
  known_torch() = std::move(torch);  // all of it or nothing: no forward goes unasked
  return true;
}

nb::object direct_forward(runtime::Layer& layer, nb::handle input, nb::handle weight,
                          nb::handle bias, bool relu) {
  constexpr std::size_t kMaxDimensions = 6;
  const Torch& torch = known_torch();
  if (torch.exchange == nullptr || Py_TYPE(input.ptr()) != torch.tensor ||
      Py_TYPE(weight.ptr()) != torch.parameter || somebody_watches(torch)) {
    return nb::none();
  }
  const dlpack::Exchange& exchange = *torch.exchange;
  dlpack::Tensor raw_input{};
  dlpack::Tensor raw_weight{};
  dlpack::Tensor raw_bias{};
  const auto x = dense(torch, input, raw_input);
  const auto w = dense(torch, weight, raw_weight);
  if (!x || !w || w->dimensions != 2 || x->dimensions > kMaxDimensions || x->type != w->type ||
      x->shape[x->dimensions - 1] != w->shape[1]) {
    return nb::none();
  }
  const std::int64_t outputs = w->shape[0];
  std::optional<Dense> b;
  if (!bias.is_none()) {
    if (Py_TYPE(bias.ptr()) != torch.parameter) return nb::none();
    b = dense(torch, bias, raw_bias);
    if (!b || b->dimensions != 1 || b->shape[0] != outputs || b->type != x->type) {
      return nb::none();
    }
    if (!is_whole(torch, bias, *b)) return nb::none();
  }
  if (!is_whole(torch, input, *x)) return nb::none();
  std::array<std::int64_t, kMaxDimensions> shape{};
  std::size_t samples = 1;
  for (std::size_t i = 0; i + 1 < x->dimensions; ++i) {
    shape[i] = x->shape[i];
    samples *= static_cast<std::size_t>(shape[i]);
  }
  shape[x->dimensions - 1] = outputs;

  runtime::WeightSource source{.data = w->data,
                               .type = w->type,
                               .outputs = static_cast<std::uint64_t>(outputs),
                               .depth = static_cast<std::uint64_t>(w->shape[1])};
  if (!mark_changes(torch, weight, source)) return nb::none();

  dlpack::Tensor prototype = raw_input;
  prototype.data = nullptr;
  prototype.byte_offset = 0;
  prototype.shape = shape.data();
  prototype.strides = nullptr;
  dlpack::ManagedTensor* allocated = nullptr;
  if (exchange.allocate(&prototype, &allocated, nullptr, [](void*, const char*, const char*) {}) !=
      0) {
    PyErr_Clear();
    return nb::none();
  }
  std::unique_ptr<dlpack::ManagedTensor, Delete> output(allocated);
  void* const out = static_cast<std::byte*>(output->tensor.data) + output->tensor.byte_offset;
  large_memory::prefer_huge_pages(
      out, samples * static_cast<std::size_t>(outputs) * kernels::float_bytes(x->type));
  bool done = false;
  {
    const nb::gil_scoped_release release;  // the layer's lock may be another thread's
    done = layer.forward_packed(source,
                                {.input = x->data,
                                 .input_type = x->type,
                                 .samples = samples,
                                 .bias = b ? b->data : nullptr,
                                 .bias_type = x->type,
                                 .output = out,
                                 .output_type = x->type,
                                 .relu = relu},
                                runtime::process_executor());
  }
  if (!done) return nb::none();
  void* made = nullptr;
  if (exchange.managed_to_object(output.release(), &made) != 0) throw nb::python_error();
  return nb::steal(static_cast<PyObject*>(made));
}

}  // namespace tfmbs::binding
