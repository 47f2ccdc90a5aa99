#include "direct_forward.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "dlpack.hpp"
#include "tfmbs/execution/executor.hpp"
#include "tfmbs/format/large_memory.hpp"
#include "tfmbs/kernels/kernels.hpp"
#include "tfmbs/runtime/call.hpp"

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
  // A module's dictionary and the name of its number that is -1 unless dual numbers are in use.
  PyObject* forward_mode{nullptr};
  PyObject* forward_mode_level{nullptr};
};

Torch& known_torch() {
  static auto* const torch = new Torch;  // the interpreter may outlive static objects
  return *torch;
}

#ifdef Py_LIMITED_API
PyObject* call(PyObject* function, PyObject* argument = nullptr) {
  PyObject* arguments[] = {nullptr, argument};  // the first place is the callee's to use
  const std::size_t count = argument == nullptr ? 0 : 1;
  return PyObject_Vectorcall(function, arguments + 1, count | PY_VECTORCALL_ARGUMENTS_OFFSET,
                             nullptr);
}
#else  // what is inline here takes half the time
PyObject* call(PyObject* function) { return PyObject_CallNoArgs(function); }
PyObject* call(PyObject* function, PyObject* argument) {
  return PyObject_CallOneArg(function, argument);
}
#endif

// Whether an op that is dispatched now would be seen. What cannot be asked counts as yes.
bool is_watched(const Torch& torch) {
  PyObject* const level =  // borrowed
      PyDict_GetItemWithError(torch.forward_mode, torch.forward_mode_level);
  if (level == nullptr || PyLong_AsLong(level) != -1 || PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    return true;
  }
  return std::any_of(torch.questions.begin(), torch.questions.end(), [](PyObject* question) {
    const auto answer = nb::steal(call(question));
    const int yes = answer.is_none() ? 0 : answer.is_valid() ? PyObject_IsTrue(answer.ptr()) : -1;
    if (yes < 0) PyErr_Clear();
    return yes != 0;
  });
}

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

// Whether the tensor's values are those of its memory, negated: DLPack would not say so.
bool is_negated(const Torch& torch, nb::handle object) {
  const auto negated = nb::steal(call(torch.is_neg, object.ptr()));
  if (!negated.is_valid()) PyErr_Clear();
  return !negated.is(nb::bool_(false));
}

// A dense CPU tensor. None where it is no such tensor, or that cannot be told.
std::optional<runtime::TensorView> view_of(const Torch& torch, nb::handle object,
                                           dlpack::Tensor& tensor) {
  if (is_negated(torch, object)) return std::nullopt;
  if (torch.exchange->from_object(object.ptr(), &tensor) != 0) {
    PyErr_Clear();
    return std::nullopt;
  }
  if (tensor.device.type != dlpack::kCpu || tensor.dimensions < 1 || !is_row_major(tensor)) {
    return std::nullopt;
  }
  const auto* const memory = static_cast<const std::byte*>(tensor.data);
  return runtime::TensorView{.data = memory == nullptr ? nullptr : memory + tensor.byte_offset,
                             .type = float_type(tensor.type),
                             .sizes = {tensor.shape, static_cast<std::size_t>(tensor.dimensions)}};
}

// Says what the tensor's storage holds: one that shrank leaves the sizes as they were, and DLPack
// does not carry the storage's size. False where it cannot be told.
bool note_held(const Torch& torch, nb::handle object, runtime::TensorView& tensor) {
  const auto storage = nb::steal(call(torch.untyped_storage, object.ptr()));
  const Py_ssize_t held = storage.is_valid() ? PyObject_Size(storage.ptr()) : -1;
  const auto offset =
      held >= 0 ? nb::steal(call(torch.storage_offset, object.ptr())) : nb::object();
  const Py_ssize_t first = offset.is_valid() ? PyLong_AsSsize_t(offset.ptr()) : -1;
  if (first < 0 || !tensor.type) {
    PyErr_Clear();
    return false;
  }
  const auto bytes = static_cast<std::uint64_t>(held);
  const std::uint64_t before =
      static_cast<std::uint64_t>(first) * kernels::float_bytes(*tensor.type);
  tensor.held = bytes > before ? bytes - before : 0;
  return true;
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
        const auto inference = nb::steal(call(torch.is_inference, weight.ptr()));
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

bool use_tensors(nb::handle tensor_type, nb::handle parameter_type, const nb::tuple& questions,
                 nb::handle forward_mode, nb::handle forward_mode_level) {
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
              .questions = {},
              .forward_mode = forward_mode.inc_ref().ptr(),
              .forward_mode_level = forward_mode_level.inc_ref().ptr()};
  for (const nb::handle question : questions) torch.questions.push_back(question.inc_ref().ptr());
  known_torch() = std::move(torch);  // all of it or nothing: no forward goes unasked
  return true;
}

nb::object direct_forward(runtime::Layer& layer, nb::handle input, nb::handle weight,
                          nb::handle bias, bool relu) {
  constexpr std::size_t kMaxDimensions = 6;
  const Torch& torch = known_torch();
  if (torch.exchange == nullptr || Py_TYPE(input.ptr()) != torch.tensor ||
      Py_TYPE(weight.ptr()) != torch.parameter || is_watched(torch)) {
    return nb::none();
  }
  const dlpack::Exchange& exchange = *torch.exchange;
  dlpack::Tensor raw_input{};
  dlpack::Tensor raw_weight{};
  dlpack::Tensor raw_bias{};
  auto x = view_of(torch, input, raw_input);
  const auto w = view_of(torch, weight, raw_weight);
  if (!x || !w || x->sizes.size() > kMaxDimensions || !note_held(torch, input, *x)) {
    return nb::none();
  }
  runtime::LinearRequest request{.input = *x, .weight = *w, .relu = relu};
  if (!bias.is_none()) {
    if (Py_TYPE(bias.ptr()) != torch.parameter) return nb::none();
    request.bias = view_of(torch, bias, raw_bias);
    if (!request.bias || !note_held(torch, bias, *request.bias)) return nb::none();
  }
  auto call = runtime::build_call(request);
  if (!call || (w->data == nullptr && call.value().outputs * call.value().depth != 0)) {
    return nb::none();
  }
  std::array<std::int64_t, kMaxDimensions> shape{};
  std::ranges::copy(x->sizes, shape.begin());
  shape[x->sizes.size() - 1] = static_cast<std::int64_t>(call.value().outputs);

  runtime::WeightSource source{.data = w->data,
                               .type = *w->type,
                               .outputs = call.value().outputs,
                               .depth = call.value().depth};
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
  large_memory::prefer_huge_pages(out, call.value().output_bytes);
  call.value().args.output = out;
  bool done = false;
  {
    const nb::gil_scoped_release release;  // the layer's lock may be another thread's
    done = layer.forward_packed(source, call.value().args, execution::process_executor());
  }
  if (!done) return nb::none();
  void* made = nullptr;
  if (exchange.managed_to_object(output.release(), &made) != 0) throw nb::python_error();
  return nb::steal(static_cast<PyObject*>(made));
}

}  // namespace tfmbs::binding
