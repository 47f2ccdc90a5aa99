// A layer's place on a device, for python/pytfmbs/nn/linear.py: the op finds the layer by its text,
// and this object ends it.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "direct_forward.hpp"
#include "errors.hpp"
#include "fabric_handle.hpp"
#include "profile_dict.hpp"
#include "tfmbs/format/large_memory.hpp"
#include "tfmbs/format/weight_panels.hpp"
#include "tfmbs/linear/activation.hpp"
#include "tfmbs/linear/packing_policy.hpp"
#include "tfmbs/runtime/layer_registry.hpp"

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace tfmbs::binding {
namespace {

using runtime::LayerRegistry;
using runtime::LayerSpec;

// Owns the registry's entries: when Python lets go, the layer gives its space back. After a move
// the identity before stays an alias, for a forward pass that has read it already.
class LayerHandle {
 public:
  // fabric: null for a layer without a device.
  LayerHandle(LayerSpec spec, std::shared_ptr<device::Fabric> fabric, LayerHandle* replacing)
      : layer_(
            check(runtime::Layer::make(std::move(spec), std::move(fabric),
                                       replacing == nullptr ? nullptr : replacing->layer_.get()))),
        identity_(layer_->spec().identity.to_text()) {
    auto& registry = LayerRegistry::instance();
    registry.add(identity_, layer_);
    if (replacing == nullptr) return;
    registry.remove(replacing->alias_, *replacing->layer_);
    registry.add(replacing->identity_, layer_);
    // Still there where the layers' numbers differ, and with them their keys.
    registry.remove(replacing->identity_, *replacing->layer_);
    alias_ = std::exchange(replacing->identity_, {});
  }
  ~LayerHandle() {
    if (!layer_) return;
    // The device may be at work; without the lock only while there is an interpreter.
    std::optional<nb::gil_scoped_release> release;
    if (nb::is_alive()) release.emplace();
    LayerRegistry::instance().remove(alias_, *layer_);
    LayerRegistry::instance().remove(identity_, *layer_);
    layer_.reset();
  }
  LayerHandle(LayerHandle&&) = default;
  LayerHandle& operator=(LayerHandle&&) = delete;
  LayerHandle(const LayerHandle&) = delete;
  LayerHandle& operator=(const LayerHandle&) = delete;

  [[nodiscard]] runtime::Layer& layer() const noexcept { return *layer_; }
  [[nodiscard]] const std::string& identity() const noexcept { return identity_; }

 private:
  std::shared_ptr<runtime::Layer> layer_;
  std::string identity_;  // empty once another handle has replaced this one
  std::string alias_;     // the identity before; empty: none
};

LayerHandle make_layer(const std::optional<FabricHandle>& fabric, const std::string& name,
                       std::uint64_t outputs, std::uint64_t depth,
                       const std::string& weight_quantizer, const std::string& activation,
                       nb::handle weight_addr, nb::handle tile_mask, LayerHandle* replacing,
                       std::uint32_t group) {
  LayerSpec spec{.identity = {.name = name},
                 .outputs = outputs,
                 .depth = depth,
                 .quantizer = check(linear::parse_weight_quantizer(weight_quantizer)),
                 .activation = check(linear::parse_activation(activation)),
                 .group = group};
  if (!weight_addr.is_none()) {
    spec.identity.weight_address =
        unsigned_argument(weight_addr, "weight_addr", ErrorCode::kPlacement);
  }
  if (!tile_mask.is_none()) {
    const Geometry geometry = fabric ? fabric->fabric->config().geometry : Geometry{};
    spec.identity.tile_mask = unsigned_argument(tile_mask, "tile_mask", ErrorCode::kInvalidArgument,
                                                geometry.all_tiles(), 1);
  }
  if (!fabric) {
    static std::atomic<std::uint64_t> tokens{0};
    spec.identity.token = ++tokens;
  }
  const nb::gil_scoped_release release;  // the device may be at work
  return {std::move(spec), fabric ? std::shared_ptr<device::Fabric>(fabric->fabric) : nullptr,
          replacing};
}

using WeightMemory = nb::ndarray<nb::pytorch, std::uint8_t, nb::ndim<1>, nb::device::cpu>;

WeightMemory weight_memory(std::size_t size) {
  struct Memory {
    explicit Memory(std::size_t count) : bytes(count), data(large_memory::allocate(count)) {}
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    ~Memory() { large_memory::release(data, bytes); }
    std::size_t bytes;
    void* data;
  };
  auto memory = std::make_unique<Memory>(std::max<std::size_t>(size, 1));
  void* const data = memory->data;
  const nb::capsule owner(memory.release(),
                          [](void* held) noexcept { delete static_cast<Memory*>(held); });
  return {data, {size}, owner};
}

}  // namespace

void bind_layer(nb::module_& m) {
  m.def(
      "activation_modes",
      [] {
        std::vector<std::tuple<std::string, std::optional<double>>> modes;
        for (const linear::ActivationMode& mode : linear::activation_modes()) {
          modes.emplace_back(std::string(mode.name), mode.window);
        }
        return modes;
      },
      "Name of each activation mode, and the straight-through window that it has by default.");
  m.def(
      "panel_bytes",
      [](const std::string& layout, std::uint64_t outputs, std::uint64_t depth) {
        const WeightPanelsView view{nullptr, check(parse_weight_layout(layout)), outputs, depth};
        return depth == 0 ? std::size_t{0} : view.size();
      },
      "layout"_a, "outputs"_a, "depth"_a, "Bytes of weights packed in a layout.");
  m.def(
      "weight_memory", &weight_memory, "size"_a,
      nb::sig("def weight_memory(size: int) -> torch.Tensor"),
      "A uint8 vector of that many bytes for packed weights, uninitialized. Large ones share huge "
      "pages. Raises MemoryError.");
  m.def(
      "packing_layout",
      [](const std::string& activation, const std::string& packing) {
        const linear::Activation mode = check(linear::parse_activation(activation));
        const auto& layouts = linear::mode_of(mode).layouts();
        const bool by_values = linear::mode_of(mode).by_values;
        if (packing == "auto") return std::string(name_of(linear::preferred_layout(mode)));
        if (packing == "packed2") return std::string(name_of(layouts.cached));
        if (packing == "packed_base3") {
          return std::string(
              name_of(by_values ? WeightLayout::kInt8Fives : WeightLayout::kTritFives));
        }
        throw CoreFailure(
            {ErrorCode::kInvalidArgument,
             "packing is '" + packing + "'; allowed are 'auto', 'packed2', 'packed_base3'"});
      },
      "activation"_a, "packing"_a,
      "The weight layout of a packing: \"packed2\" (two bits a weight), \"packed_base3\" (1.6), or "
      "\"auto\" (what the kernels in use want now).");
  m.def(
      "weight_storage", [] { return std::string(name_of(linear::weight_storage())); },
      "How weights are packed: \"auto\", \"cached\" or \"streamed\".");
  m.def(
      "set_weight_storage",
      [](const std::string& storage) {
        linear::set_weight_storage(check(linear::parse_weight_storage(storage)));
      },
      "storage"_a,
      "How weights that are packed from now on are packed, in the whole process; pytfmbs.prepare() "
      "packs a model's anew.\n\n"
      "\"cached\": two bits a weight, the fastest where the weights stay in a cache. \"streamed\": "
      "1.6 bits where the CPU unpacks them fast, for weights that come from memory. \"auto\": "
      "cached while the weights of all layers fit the last-level cache. Raises ArgumentError for "
      "anything else.");
  m.def("use_tensors", &use_tensors, "tensor_type"_a, "parameter_type"_a, "questions"_a,
        "forward_mode"_a, "forward_mode_level"_a,
        "The types whose tensors Layer.direct_forward takes, and the functions that it asks first. "
        "False where it cannot read such tensors.");
  nb::class_<LayerHandle>(m, "Layer", "A layer's place on a device; TFMBSLinear holds one.")
      .def(
          "__init__",
          [](LayerHandle* self, const std::optional<FabricHandle>& fabric, const std::string& name,
             std::uint64_t outputs, std::uint64_t depth, const std::string& weight_quantizer,
             const std::string& activation, nb::handle weight_addr, nb::handle tile_mask,
             LayerHandle* replacing, std::uint32_t group) {
            new (self)
                LayerHandle(make_layer(fabric, name, outputs, depth, weight_quantizer, activation,
                                       weight_addr, tile_mask, replacing, group));
          },
          "fabric"_a.none(), "name"_a, "outputs"_a, "depth"_a, "weight_quantizer"_a, "activation"_a,
          "weight_addr"_a.none(), "tile_mask"_a.none(), "replacing"_a = nb::none(), "group"_a = 0,
          "fabric: None for a layer without a device. replacing: a layer of the same device whose "
          "name and place are free for this one; it "
          "leaves if this one enters, and is of no use then.")
      .def_prop_ro(
          "identity",
          [](const LayerHandle& h) { return nb::bytes(h.identity().data(), h.identity().size()); },
          "What ops carry of the layer, as data: name, place and device.")
      .def_prop_ro(
          "spec", [](const LayerHandle& h) { return h.layer().spec().to_text(); },
          "The whole specification, for exporters.")
      .def_prop_ro("name", [](const LayerHandle& h) { return h.layer().spec().identity.name; })
      .def("expect_weights",
           [](const LayerHandle& h) {
             const nb::gil_scoped_release release;
             h.layer().expect_weights();
           })
      .def(
          "holds_storage",
          [](const LayerHandle& h, std::uintptr_t weights) {
            const nb::gil_scoped_release release;
            return h.layer().holds_storage(reinterpret_cast<const void*>(weights));
          },
          "weights"_a,
          "Whether the layer holds a reference to the storage of the float weights at "
          "that address.")
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
      .def(
          "set_pinned",
          [](const LayerHandle& h, bool pinned) {
            const nb::gil_scoped_release release;
            check(h.layer().set_pinned(pinned));
          },
          "pinned"_a)
      .def("profile", [](const LayerHandle& h) {
        device::LayerProfile profile;
        {
          const nb::gil_scoped_release release;
          profile = h.layer().profile();
        }
        const auto& fabric = h.layer().fabric();
        return layer_dict(profile, fabric ? fabric->config() : fabric::FabricConfig{});
      });
}

}  // namespace tfmbs::binding
