// A layer's place on a device, for python/pytfmbs/nn/linear.py: the op finds the layer by its text,
// and this object ends it.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <memory>
#include <string>
#include <utility>

#include "arguments.hpp"
#include "direct_forward.hpp"
#include "errors.hpp"
#include "fabric_handle.hpp"
#include "profile_dict.hpp"
#include "tfmbs/runtime/layer_registry.hpp"
#include "tfmbs/runtime/weight_storage.hpp"

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace tfmbs::binding {
namespace {

using runtime::LayerRegistry;
using runtime::LayerSpec;

// Owns the registry's entries: when Python lets go, the layer gives its space back. After a move or
// a new window the text before stays an alias, for a forward that has read it already.
class LayerHandle {
 public:
  LayerHandle(LayerSpec spec, const FabricHandle& fabric, LayerHandle* replacing)
      : layer_(check(LayerRegistry::instance().add(
            std::move(spec), fabric.fabric,
            replacing == nullptr ? nullptr : replacing->layer_.get(),
            replacing == nullptr ? std::string{} : replacing->text_))),
        text_(layer_->spec().to_text()) {
    if (replacing == nullptr) return;
    if (replacing->alias_ == text_) replacing->alias_.clear();  // moved back: it is this one's now
    set_alias(std::exchange(replacing->text_, {}));
    replacing->set_alias({});
  }
  ~LayerHandle() {
    if (!layer_) return;
    // The device may be at work; without the lock only while there is an interpreter.
    std::optional<nb::gil_scoped_release> release;
    if (nb::is_alive()) release.emplace();
    set_alias({});
    if (!text_.empty()) LayerRegistry::instance().remove(text_);
    layer_.reset();
  }
  LayerHandle(LayerHandle&&) = default;
  LayerHandle& operator=(LayerHandle&&) = delete;
  LayerHandle(const LayerHandle&) = delete;
  LayerHandle& operator=(const LayerHandle&) = delete;

  // The gradient's window is part of the text, so that an op needs no argument for it.
  void set_ste_clip(std::optional<double> clip) {
    const nb::gil_scoped_release release;  // a fork may hold the registry
    LayerSpec spec = check(LayerSpec::parse(text_));
    spec.ste_clip = clip;
    std::string text = spec.to_text();
    if (text == text_) return;
    LayerRegistry::instance().add_alias(text_, text);
    std::swap(text, text_);
    set_alias(std::move(text));
  }

  [[nodiscard]] runtime::Layer& layer() const noexcept { return *layer_; }
  [[nodiscard]] const std::string& text() const noexcept { return text_; }

 private:
  void set_alias(std::string alias) {
    if (alias == text_) alias.clear();
    if (!alias_.empty() && alias_ != text_ && alias_ != alias) {
      LayerRegistry::instance().remove(alias_);
    }
    alias_ = std::move(alias);
  }

  std::shared_ptr<runtime::Layer> layer_;
  std::string text_;   // empty once another handle has replaced this one
  std::string alias_;  // the text before; empty: none
};

LayerHandle make_layer(const FabricHandle& fabric, const std::string& name, std::uint64_t outputs,
                       std::uint64_t depth, const std::string& weight_quantizer,
                       const std::string& activation, nb::handle weight_addr, nb::handle tile_mask,
                       std::optional<double> ste_clip, LayerHandle* replacing) {
  LayerSpec spec{.name = name,
                 .outputs = outputs,
                 .depth = depth,
                 .quantizer = check(runtime::parse_weight_quantizer(weight_quantizer)),
                 .activation = check(runtime::parse_activation(activation)),
                 .ste_clip = ste_clip};
  if (!weight_addr.is_none()) {
    spec.weight_address = unsigned_argument(weight_addr, "weight_addr", ErrorCode::kPlacement);
  }
  if (!tile_mask.is_none()) {
    spec.tile_mask = unsigned_argument(tile_mask, "tile_mask", ErrorCode::kInvalidArgument,
                                       fabric.fabric->config().geometry.all_tiles(), 1);
  }
  const nb::gil_scoped_release release;  // the device may be at work
  return {std::move(spec), fabric, replacing};
}

}  // namespace

void bind_layer(nb::module_& m) {
  m.def(
      "quantization_of",
      [](const std::string& text) {
        const LayerSpec spec = check(LayerSpec::parse(text));
        return std::tuple(std::string(runtime::name_of(spec.quantizer)),
                          std::string(runtime::name_of(spec.activation)), spec.ste_clip);
      },
      "spec"_a, "Weight quantizer, activation and ste_clip of a layer specification.");
  m.def(
      "weight_storage", [] { return std::string(name_of(runtime::weight_storage())); },
      "How weights are packed: \"auto\", \"cached\" or \"streamed\".");
  m.def(
      "set_weight_storage",
      [](const std::string& storage) {
        runtime::set_weight_storage(check(runtime::parse_weight_storage(storage)));
      },
      "storage"_a,
      "How weights are packed, in the whole process; a layer follows at its next forward.\n\n"
      "\"cached\": two bits a weight, the fastest where the weights stay in a cache. \"streamed\": "
      "1.6 bits where the CPU unpacks them fast, for weights that come from memory. \"auto\": "
      "cached while the weights of all layers fit the last-level cache. Raises ArgumentError for "
      "anything else.");
  m.def("use_tensors", &use_tensors, "tensor_type"_a, "parameter_type"_a, "questions"_a,
        "The types whose tensors Layer.direct_forward takes, and the functions that it asks first. "
        "False where it cannot read such tensors.");
  nb::class_<LayerHandle>(m, "Layer", "A layer's place on a device; TFMBSLinear holds one.")
      .def(
          "__init__",
          [](LayerHandle* self, const FabricHandle& fabric, const std::string& name,
             std::uint64_t outputs, std::uint64_t depth, const std::string& weight_quantizer,
             const std::string& activation, nb::handle weight_addr, nb::handle tile_mask,
             std::optional<double> ste_clip, LayerHandle* replacing) {
            new (self)
                LayerHandle(make_layer(fabric, name, outputs, depth, weight_quantizer, activation,
                                       weight_addr, tile_mask, ste_clip, replacing));
          },
          "fabric"_a, "name"_a, "outputs"_a, "depth"_a, "weight_quantizer"_a, "activation"_a,
          "weight_addr"_a.none(), "tile_mask"_a.none(), "ste_clip"_a.none(),
          "replacing"_a = nb::none(),
          "replacing: a layer of the same device whose name and place are free for this one; it "
          "leaves if this one enters, and is of no use then.")
      .def_prop_ro("spec", [](const LayerHandle& h) { return h.text(); })
      .def_prop_ro("name", [](const LayerHandle& h) { return h.layer().spec().name; })
      .def_prop_ro("packed_bytes",
                   [](const LayerHandle& h) {
                     const nb::gil_scoped_release release;
                     return h.layer().packed_bytes();
                   })
      .def_prop_ro("packed_layout",
                   [](const LayerHandle& h) {
                     const nb::gil_scoped_release release;
                     const auto layout = h.layer().packed_layout();
                     return layout ? std::optional<std::string>(name_of(*layout)) : std::nullopt;
                   })
      .def("refresh",
           [](const LayerHandle& h) {
             const nb::gil_scoped_release release;
             h.layer().refresh();
           })
      .def(
          "note_sparsity",
          [](const LayerHandle& h, std::uint64_t zeros, std::uint64_t size) {
            const nb::gil_scoped_release release;
            h.layer().note_sparsity(
                size == 0 ? 0.0 : static_cast<double>(zeros) / static_cast<double>(size));
          },
          "zeros"_a, "size"_a, "Tells the device the sparsity of the present weights.")
      .def(
          "direct_forward",
          [](LayerHandle& h, nb::handle input, nb::handle weight, nb::handle bias, bool relu) {
            return direct_forward(h.layer(), input, weight, bias, relu);
          },
          "input"_a, "weight"_a, "bias"_a.none(), "relu"_a = false,
          "The output, or None where only the op will do: somebody would see it, weights to be "
          "packed, bad input. Eval mode alone.")
      .def("set_ste_clip", &LayerHandle::set_ste_clip, "clip"_a.none())
      .def(
          "set_pinned",
          [](const LayerHandle& h, bool pinned) {
            const nb::gil_scoped_release release;
            check(h.layer().set_pinned(pinned));
          },
          "pinned"_a)
      .def("profile", [](const LayerHandle& h) {
        runtime::LayerProfile profile;
        {
          const nb::gil_scoped_release release;
          profile = h.layer().profile();
        }
        return layer_dict(profile, h.layer().fabric()->config());
      });
}

}  // namespace tfmbs::binding
