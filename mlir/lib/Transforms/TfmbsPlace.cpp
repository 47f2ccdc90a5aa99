#include <algorithm>

#include "LayerConstants.h"
#include "llvm/ADT/DenseMap.h"
#include "tfmbs-mlir/Dialect/TfmbsOps.h"
#include "tfmbs-mlir/Transforms/Passes.h"
#include "tfmbs/placement/bank_map.hpp"
#include "tfmbs/placement/schedule.hpp"

namespace tfmbs::ir {

using namespace mlir;  // NOLINT(google-build-using-namespace): MLIR's own convention

#define GEN_PASS_DEF_TFMBSPLACE
#include "tfmbs-mlir/Transforms/Passes.h.inc"

namespace {

constexpr llvm::StringLiteral kPlacement = "placement";
constexpr llvm::StringLiteral kStreamed = "streamed";

// A layer of the network: ops of one name, weights and mask.
struct Layer {
  SmallVector<Operation*> ops{};
  std::string name;
  std::uint64_t outputs{0};
  std::uint64_t depth{0};
  std::uint64_t tile_mask{0};
  std::optional<std::uint64_t> given{};  // the address that the module came with
  bool streams{false};
  std::uint32_t window{0};                // words that must stay free for it where it streams
  std::optional<std::uint64_t> placed{};  // the address that the pass found
};

std::uint64_t u64(Operation* op, StringRef name) {
  return op->getAttrOfType<IntegerAttr>(name).getValue().getZExtValue();
}

class Placer {
 public:
  explicit Placer(const Geometry& geometry) : geometry_(geometry) {}

  LogicalResult collect(ModuleOp module);
  // Gives every layer that can be resident together with those before it an address.
  LogicalResult place();
  // The first layers that stream, with what they need and find.
  LogicalResult refuse_streamed();
  void write();

 private:
  LogicalResult add(Operation* op, Value weights);
  LogicalResult enter_given(placement::BankMap& map);
  LogicalResult choose_window(Layer& layer, const placement::BankMap& map, std::size_t id);
  // One walk through the layers, with room kept for those that are known to stream; whether it
  // found more of them.
  bool try_place(placement::BankMap& map);
  [[nodiscard]] bool windows_fit(const placement::BankMap& map, std::uint64_t tile_mask) const;

  Geometry geometry_;
  std::vector<Layer> layers_;
  llvm::DenseMap<Attribute, std::size_t> known_;
  std::vector<std::uint32_t> room_;  // at the end: words that the others leave a layer
};

LogicalResult Placer::add(Operation* op, Value weights) {
  const auto [found, is_new] = known_.try_emplace(layer_identity(op, weights), layers_.size());
  if (is_new) {
    layers_.push_back({.name = layer_name(op->getAttrOfType<DictionaryAttr>(kTelemetry)).str(),
                       .outputs = weight_size(weights, 0),
                       .depth = weight_size(weights, 1),
                       .tile_mask = u64(op, kTileMask)});
  }
  Layer& layer = layers_[found->second];
  layer.ops.push_back(op);
  if ((layer.tile_mask & ~geometry_.all_tiles()) != 0) {
    return op->emitOpError() << "layer '" << layer.name << "': tile_mask " << layer.tile_mask
                             << " names tiles beyond the " << geometry_.tiles()
                             << " of the fabric; allowed are 1 to " << geometry_.all_tiles();
  }
  if (!op->hasAttr(kWeightAddress)) return success();
  const std::uint64_t address = u64(op, kWeightAddress);
  if (layer.given && *layer.given != address) {
    return op->emitOpError() << "layer '" << layer.name << "' has two addresses: " << *layer.given
                             << " and " << address;
  }
  layer.given = address;
  return success();
}

LogicalResult Placer::collect(ModuleOp module) {
  const WalkResult walked = module->walk<WalkOrder::PreOrder>([&](Operation* op) {
    if (auto gemv = dyn_cast<GemvOp>(op)) return WalkResult(add(op, gemv.getWeights()));
    if (auto linear = dyn_cast<LinearOp>(op)) return WalkResult(add(op, linear.getWeights()));
    return WalkResult::advance();
  });
  return failure(walked.wasInterrupted());
}

// All layers arrive, as in the runtime where a network is built before it runs; those with an
// address hold it from then on.
LogicalResult Placer::enter_given(placement::BankMap& map) {
  for (std::size_t id = 0; id < layers_.size(); ++id) {
    const Layer& layer = layers_[id];
    std::vector<placement::LayerId> evicted;
    if (const auto s = map.enter(id, layer.name, layer.outputs, layer.depth, layer.tile_mask,
                                 layer.given, evicted);
        !s) {
      return layer.ops.front()->emitOpError() << s.error().message;
    }
  }
  return success();
}

// What the runtime would have for the layer's window if nobody else were resident: no more than the
// layer takes, half a bank where given addresses leave that, or else the least that works.
LogicalResult Placer::choose_window(Layer& layer, const placement::BankMap& map, std::size_t id) {
  const auto words = [&](std::uint32_t most) {
    return static_cast<std::uint32_t>(
        std::min<std::uint64_t>(most, map.tenant(static_cast<placement::LayerId>(id)).words));
  };
  const std::uint32_t least = words(placement::min_window_words(geometry_));
  const std::uint32_t wanted = words(placement::wanted_window_words(geometry_));
  const std::uint32_t room = map.kept_room(id);
  if (room < least) {
    return layer.ops.front()->emitOpError()
           << "layer '" << layer.name << "' finds no room in Bank A: it can stream through "
           << least << " words, and given addresses leave " << room;
  }
  layer.window = room >= wanted ? wanted : least;
  return success();
}

bool Placer::windows_fit(const placement::BankMap& map, std::uint64_t tile_mask) const {
  for (std::size_t id = 0; id < layers_.size(); ++id) {
    const Layer& layer = layers_[id];
    if (layer.streams && (layer.tile_mask & tile_mask) != 0 && map.kept_room(id) < layer.window) {
      return false;
    }
  }
  return true;
}

bool Placer::try_place(placement::BankMap& map) {
  constexpr std::uint64_t kSerial = 1;  // weights never change here
  bool found_more = false;
  for (std::size_t id = 0; id < layers_.size(); ++id) {
    Layer& layer = layers_[id];
    layer.placed.reset();
    if (layer.given || layer.streams) continue;
    // A placed layer is pinned, so residency is room without an eviction.
    if (map.can_reside(id) && map.set_pinned(id, true).ok()) {
      placement::BankMap::Admission admission;
      const bool admitted = map.admit(id, kSerial, admission).ok();
      if (admitted && windows_fit(map, layer.tile_mask)) {
        layer.placed = geometry_.bank_a_base(0) + 4ULL * admission.placement.first_word;
        continue;
      }
      if (admitted) map.undo(id, admission, [](placement::LayerId) {});
    }
    layer.streams = true;
    found_more = true;
  }
  return found_more;
}

LogicalResult Placer::place() {
  placement::BankMap given(geometry_);
  if (failed(enter_given(given))) return failure();
  for (std::size_t id = 0; id < layers_.size(); ++id) {
    if (!layers_[id].given && failed(choose_window(layers_[id], given, id))) return failure();
  }
  // Layers that were placed before one that turned out to stream know nothing of its window, so the
  // walk starts again with it; each time there are more of them, so it ends.
  for (bool again = true; again;) {
    placement::BankMap map = given;
    again = try_place(map);
    room_.clear();
    for (std::size_t id = 0; id < layers_.size(); ++id) room_.push_back(map.kept_room(id));
  }
  return success();
}

LogicalResult Placer::refuse_streamed() {
  bool refused = false;
  for (std::size_t id = 0; id < layers_.size(); ++id) {
    const Layer& layer = layers_[id];
    if (!layer.streams) continue;
    refused = true;
    layer.ops.front()->emitOpError()
        << "layer '" << layer.name << "' does not fit: it needs "
        << placement::resident_words(geometry_, layer.outputs, layer.depth, layer.tile_mask)
        << " words of Bank A in each tile of its mask, and " << room_[id]
        << " are free in one piece";
  }
  return failure(refused);
}

void Placer::write() {
  for (std::size_t id = 0; id < layers_.size(); ++id) {
    const Layer& layer = layers_[id];
    const auto address = layer.given ? layer.given : layer.placed;
    for (Operation* op : layer.ops) {
      Builder builder(op->getContext());
      NamedAttrList telemetry(op->getAttrOfType<DictionaryAttr>(kTelemetry));
      const auto noted = dyn_cast_or_null<StringAttr>(telemetry.get(kPlacement));
      if (address) {
        const auto type = builder.getIntegerType(64, false);
        op->setAttr(kWeightAddress,
                    builder.getIntegerAttr(type, static_cast<std::int64_t>(*address)));
        if (noted && noted.getValue() == kStreamed) telemetry.erase(kPlacement);
      } else {
        telemetry.set(kPlacement, builder.getStringAttr(kStreamed));
        op->emitRemark() << "layer '" << layer.name << "' streams: " << room_[id]
                         << " words of Bank A are left for it";
      }
      op->setAttr(kTelemetry, telemetry.getDictionary(op->getContext()));
    }
  }
}

struct TfmbsPlace : impl::TfmbsPlaceBase<TfmbsPlace> {
  using TfmbsPlaceBase::TfmbsPlaceBase;

  void runOnOperation() override {
    if (on_overflow != "stream" && on_overflow != "error") {
      getOperation().emitError() << "on-overflow is '" << on_overflow
                                 << "'; allowed are stream and error";
      return signalPassFailure();
    }
    const auto geometry = Geometry::make(tiles, lanes, bank_depth);
    if (!geometry) {
      getOperation().emitError() << geometry.error().message;
      return signalPassFailure();
    }
    Placer placer(geometry.value());
    if (failed(placer.collect(getOperation())) || failed(placer.place()) ||
        (on_overflow == "error" && failed(placer.refuse_streamed()))) {
      return signalPassFailure();
    }
    placer.write();
  }
};

}  // namespace
}  // namespace tfmbs::ir
