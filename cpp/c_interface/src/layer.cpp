#include "tfmbs/c/layer.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "last_error.hpp"
#include "slots.hpp"
#include "tfmbs/execution/executor.hpp"
#include "tfmbs/format/pt5.hpp"
#include "tfmbs/linear/quantized_weights.hpp"
#include "tfmbs/runtime/call.hpp"

namespace tfmbs::c_interface {
namespace {

using kernels::FloatType;
using runtime::Layer;

Error invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

Result<FloatType> float_type(std::int32_t type, const char* what) {
  switch (type) {
    case TFMBS_F32:
      return FloatType::kFloat32;
    case TFMBS_F64:
      return FloatType::kFloat64;
    case TFMBS_BF16:
      return FloatType::kBFloat16;
    case TFMBS_F16:
      return FloatType::kFloat16;
    default:
      return invalid(std::string(what) + " is " + std::to_string(type) +
                     "; allowed are 0 (f32), 1 (f64), 2 (bf16), 3 (f16)");
  }
}

Result<linear::Activation> activation_of(std::int32_t activation) {
  switch (activation) {
    case TFMBS_TERNARY:
      return linear::Activation::kTernary;
    case TFMBS_INT8:
      return linear::Activation::kInt8;
    default:
      return invalid("activation is " + std::to_string(activation) +
                     "; allowed are 0 (ternary) and 1 (int8)");
  }
}

// A non-negative size of the C side.
Result<std::uint64_t> size_of(std::int64_t size, const char* what) {
  if (size < 0) return invalid(std::string(what) + " is " + std::to_string(size));
  return static_cast<std::uint64_t>(size);
}

Status require(const void* pointer, const char* what) {
  if (pointer != nullptr) return {};
  return invalid(std::string(what) + " is a null pointer");
}

struct Definition {
  const char* name;
  std::int64_t outputs;
  std::int64_t depth;
  std::int32_t activation;
  std::uint64_t tile_mask;
  std::int64_t weight_address;
  const char* fabric;
  const std::uint8_t* weights;
  const void* scales;
  std::int64_t scale_count;
  std::int32_t scale_type;
};

Result<runtime::LayerSpec> spec_of(const Definition& definition) {
  if (auto s = require(definition.name, "name"); !s) return std::move(s).error();
  if (auto s = require(definition.fabric, "fabric"); !s) return std::move(s).error();
  const auto outputs = size_of(definition.outputs, "outputs");
  if (!outputs) return outputs.error();
  const auto depth = size_of(definition.depth, "depth");
  if (!depth) return depth.error();
  const auto activation = activation_of(definition.activation);
  if (!activation) return activation.error();
  auto fabric = device::FabricSpec::parse(definition.fabric);
  if (!fabric) return std::move(fabric).error();
  if (definition.weight_address < -1) {
    return invalid("weight_address is " + std::to_string(definition.weight_address) +
                   "; allowed are addresses, and -1 for automatic");
  }
  runtime::LayerSpec spec{.identity = {.name = definition.name,
                                       .tile_mask = definition.tile_mask,
                                       .fabric = std::move(fabric).value()},
                          .outputs = outputs.value(),
                          .depth = depth.value(),
                          .quantizer = linear::WeightQuantizer::kCustom,
                          .activation = activation.value()};
  if (definition.weight_address >= 0) {
    spec.identity.weight_address = static_cast<std::uint64_t>(definition.weight_address);
  }
  if (spec.identity.name.empty()) return invalid("name is empty; a layer needs one");
  if (auto s = runtime::check_limits(spec); !s) return std::move(s).error();
  return spec;
}

// Scales in fp64, as the runtime takes them. `outputs` was checked.
Result<std::vector<double>> scales_of(const Definition& definition) {
  if (definition.scale_count != 1 && definition.scale_count != definition.outputs) {
    return invalid("scale_count is " + std::to_string(definition.scale_count) +
                   "; allowed are 1 and " + std::to_string(definition.outputs) + ", one an output");
  }
  const auto count = static_cast<std::size_t>(definition.scale_count);
  if (definition.scale_type != TFMBS_F32 && definition.scale_type != TFMBS_F64) {
    return invalid("scale_type is " + std::to_string(definition.scale_type) +
                   "; allowed are 0 (f32) and 1 (f64)");
  }
  if (count == 0) return std::vector<double>{};
  if (auto s = require(definition.scales, "scales"); !s) return std::move(s).error();
  if (definition.scale_type == TFMBS_F64) {
    const auto* values = static_cast<const double*>(definition.scales);
    return std::vector<double>(values, values + count);
  }
  const auto* values = static_cast<const float*>(definition.scales);
  return std::vector<double>(values, values + count);
}

Result<std::shared_ptr<Layer>> make_layer(runtime::LayerSpec spec,
                                          const linear::QuantizedWeights& weights) {
  auto fabric = device::Fabric::find_or_open(*spec.identity.fabric);
  return Layer::make_constant(std::move(spec), std::move(fabric), weights);
}

// Everything that needs no device.
Result<linear::QuantizedWeights> weights_of(const Definition& definition,
                                            const runtime::LayerSpec& spec) {
  auto scales = scales_of(definition);
  if (!scales) return std::move(scales).error();
  const std::size_t bytes = pt5_bytes(spec.outputs * spec.depth);
  if (bytes != 0) {
    if (auto s = require(definition.weights, "weights"); !s) return std::move(s).error();
  }
  return linear::read_stream({.bytes = {definition.weights, bytes},
                              .outputs = spec.outputs,
                              .depth = spec.depth,
                              .scales = std::move(scales).value()});
}

Status define(tfmbs_layer** slot, const Definition& definition,
              std::unique_ptr<tfmbs_layer>& made) {
  if (auto s = kernels::select_status(); !s) return s;
  auto spec = spec_of(definition);
  if (!spec) return std::move(spec).error();
  auto weights = weights_of(definition, spec.value());
  if (!weights) return std::move(weights).error();
  std::unique_ptr<tfmbs_layer> before;  // ends after the lock has
  const std::scoped_lock lock(slot_locks().define);
  if (is_defined(slot)) return {};  // by a thread that was faster
  auto layer = make_layer(std::move(spec).value(), weights.value());
  if (!layer) return std::move(layer).error();
  made->layer = std::move(layer).value();
  before = exchange_slot(slot, std::move(made));
  return {};
}

// Leaves in the slot what a forward needs to fail with: the error that was just noted.
void leave_failure(tfmbs_layer** slot, std::unique_ptr<tfmbs_layer> failed) {
  const char* text = tfmbs_last_error(&failed->code);
  failed->text.assign(text);
  std::unique_ptr<tfmbs_layer> before;  // ends after the lock has
  const std::scoped_lock lock(slot_locks().define);
  if (!is_defined(slot)) before = exchange_slot(slot, std::move(failed));
}

// Bytes of a buffer of rows x columns, or none where there can be no such buffer.
std::optional<std::size_t> buffer_bytes(std::uint64_t rows, std::uint64_t columns, FloatType type) {
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::ptrdiff_t>::max());
  if (columns != 0 && rows > kMost / columns / kernels::float_bytes(type)) return std::nullopt;
  return static_cast<std::size_t>(rows * columns * kernels::float_bytes(type));
}

template <typename Bits>
void fill(void* output, std::size_t bytes, Bits bits) noexcept {
  std::fill_n(static_cast<Bits*>(output), bytes / sizeof(Bits), bits);
}

// The one NaN that the epilogue writes.
void fill_nan(void* output, std::size_t bytes, FloatType type) noexcept {
  switch (type) {
    case FloatType::kFloat32:
      return fill<std::uint32_t>(output, bytes, 0x7FC00000);
    case FloatType::kFloat64:
      return fill<std::uint64_t>(output, bytes, 0x7FF8000000000000);
    case FloatType::kBFloat16:
      return fill<std::uint16_t>(output, bytes, 0x7FC0);
    case FloatType::kFloat16:
      return fill<std::uint16_t>(output, bytes, 0x7E00);
  }
}

struct Call {
  const void* input;
  std::int32_t input_type;
  std::int64_t samples;
  const void* bias;
  std::int32_t bias_type;
  void* output;
  std::int32_t output_type;
};

// A matrix of the C side, or a vector where `columns` is not given.
struct Shape {
  std::int64_t sizes[2];
  std::size_t dimensions{2};
};
runtime::TensorView view_of(const void* data, FloatType type, const Shape& shape) {
  return {.data = data, .type = type, .sizes = {shape.sizes, shape.dimensions}};
}

Status forward(Layer& layer, const Call& call) {
  const auto samples = size_of(call.samples, "samples");
  if (!samples) return samples.error();
  const auto input_type = float_type(call.input_type, "input_type");
  if (!input_type) return input_type.error();
  const auto output_type = float_type(call.output_type, "output_type");
  if (!output_type) return output_type.error();
  const auto outputs = static_cast<std::int64_t>(layer.spec().outputs);
  const auto depth = static_cast<std::int64_t>(layer.spec().depth);
  const Shape input{{call.samples, depth}};
  const Shape weight{{outputs, depth}};
  const Shape bias{{outputs}, 1};
  runtime::LinearRequest request{.input = view_of(call.input, input_type.value(), input),
                                 .weight = view_of(nullptr, input_type.value(), weight),
                                 .out_type = output_type.value(),
                                 .wide_bias = true};
  if (call.bias != nullptr) {
    const auto bias_type = float_type(call.bias_type, "bias_type");
    if (!bias_type) return bias_type.error();
    request.bias = view_of(call.bias, bias_type.value(), bias);
  }
  if (call.samples != 0 && depth != 0) {
    if (auto s = require(call.input, "input"); !s) return s;
  }
  if (call.samples != 0 && outputs != 0) {
    if (auto s = require(call.output, "output"); !s) return s;
  }
  auto built = runtime::build_call(request);
  if (!built) return std::move(built).error();
  built.value().args.output = call.output;
  return layer.forward(built.value().args, execution::process_executor());
}

void spoil_output(std::uint64_t outputs, const Call& call) noexcept {
  if (call.output == nullptr || call.samples <= 0) return;
  if (call.output_type < TFMBS_F32 || call.output_type > TFMBS_F16) return;
  constexpr FloatType kTypes[] = {FloatType::kFloat32, FloatType::kFloat64, FloatType::kBFloat16,
                                  FloatType::kFloat16};
  const FloatType type = kTypes[call.output_type];
  if (const auto bytes = buffer_bytes(static_cast<std::uint64_t>(call.samples), outputs, type)) {
    fill_nan(call.output, *bytes, type);
  }
}

}  // namespace
}  // namespace tfmbs::c_interface

using namespace tfmbs::c_interface;  // NOLINT(google-build-using-namespace): what follows is C

extern "C" {

int32_t tfmbs_layer_define(tfmbs_layer** slot, const char* name, int64_t outputs, int64_t depth,
                           int32_t activation, uint64_t tile_mask, int64_t weight_address,
                           const char* fabric, const uint8_t* weights, const void* scales,
                           int64_t scale_count, int32_t scale_type) {
  return guarded([&] {
    if (const auto s = require(static_cast<const void*>(slot), "slot"); !s) return finish(s);
    if (is_defined(slot)) return std::int32_t{TFMBS_OK};
    auto made = std::make_unique<tfmbs_layer>();  // first: a failure needs it too
    made->outputs = outputs < 0 ? 0 : static_cast<std::uint64_t>(outputs);
    const std::int32_t status = guarded([&] {
      return finish(define(slot,
                           {name, outputs, depth, activation, tile_mask, weight_address, fabric,
                            weights, scales, scale_count, scale_type},
                           made));
    });
    if (status != TFMBS_OK) leave_failure(slot, std::move(made));
    return status;
  });
}

int32_t tfmbs_layer_forward(tfmbs_layer** slot, const void* input, int32_t input_type,
                            int64_t samples, const void* bias, int32_t bias_type, void* output,
                            int32_t output_type) {
  const Call call{input, input_type, samples, bias, bias_type, output, output_type};
  std::uint64_t outputs = 0;
  const std::int32_t status = guarded([&] {
    if (const auto s = require(static_cast<const void*>(slot), "slot"); !s) return finish(s);
    const auto held = read_slot(slot);
    if (!held) {
      return fail(invalid("the slot holds no layer: it was not defined, or was released"));
    }
    outputs = held->outputs;
    if (!held->layer) return fail(held->code, held->text.c_str());
    return finish(forward(*held->layer, call));
  });
  if (status != TFMBS_OK) spoil_output(outputs, call);
  return status;
}

void tfmbs_layer_release(tfmbs_layer** slot) {
  if (slot == nullptr) return;
  guarded([&] {
    const auto before = exchange_slot(slot, nullptr);
    return std::int32_t{TFMBS_OK};
  });
}

}  // extern "C"
