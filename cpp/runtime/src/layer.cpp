#include "tfmbs/runtime/layer.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "input_quantizer.hpp"
#include "product.hpp"
#include "tfmbs/kernels/fingerprint.hpp"

namespace tfmbs::runtime {
namespace {

std::uint64_t source_bytes(const WeightSource& source) {
  return source.outputs * source.depth * kernels::float_bytes(source.type);
}

bool holds(std::span<const std::byte> memory, const WeightSource& source) noexcept {
  return memory.data() == source.data && memory.size() >= source_bytes(source);
}

// Sixteen values spread over the weights. Memory that was freed and came back at its address, with
// other values and the version as it was (FSDP gathers parameters so), is told by it.
std::uint64_t spread_sample(const WeightSource& source) noexcept {
  constexpr std::uint64_t kValues = 16;
  const std::uint64_t count = source.outputs * source.depth;
  if (count == 0) return 0;
  const std::size_t size = kernels::float_bytes(source.type);
  const auto* values = static_cast<const std::byte*>(source.data);
  std::uint64_t sample = 0;
  for (std::uint64_t i = 0; i < kValues; ++i) {
    std::uint64_t value = 0;
    std::memcpy(&value, values + (count - 1) * i / (kValues - 1) * size, size);
    sample = (std::rotl(sample, 23) ^ value) * 0x9E3779B97F4A7C15U;
  }
  return sample;
}

}  // namespace

Layer::Layer(LayerSpec spec, std::shared_ptr<Fabric> fabric)
    : spec_(std::move(spec)), fabric_(std::move(fabric)) {
  const std::uint64_t mask = spec_.tile_mask != 0 ? spec_.tile_mask
                                                  : placement::default_tile_mask(
                                                        fabric_->config().geometry, spec_.outputs);
  tile_slots_ = static_cast<std::uint32_t>(std::popcount(mask));
}

Layer::~Layer() {
  if (id_) fabric_->leave(*id_);
}

Result<std::shared_ptr<Layer>> Layer::make(LayerSpec spec, std::shared_ptr<Fabric> fabric,
                                           const Layer* replacing) {
  spec.fabric = fabric->spec();
  // The layer is there before it enters: where memory runs out, nobody has entered.
  auto layer = std::shared_ptr<Layer>(new Layer(std::move(spec), std::move(fabric)));
  const auto id =
      layer->fabric_->enter(layer->spec_, replacing == nullptr ? std::nullopt : replacing->id_);
  if (!id) return id.error();
  layer->id_ = id.value();
  return layer;
}

Result<std::shared_ptr<Layer>> Layer::make_constant(LayerSpec spec, std::shared_ptr<Fabric> fabric,
                                                    const QuantizedWeights& weights) {
  const BitPlaneView planes = weights.planes.view();
  if (auto s = check_shape(spec, planes.rows, planes.trits); !s) return std::move(s).error();
  spec.quantizer = WeightQuantizer::kCustom;
  WeightShare share(planes.rows * planes.trits);
  const auto packed = std::make_shared<const PackedWeights>(
      weights, preferred_layout(spec.activation), SerialExecutor{});
  auto made = make(std::move(spec), std::move(fabric));
  if (!made) return std::move(made).error();
  Layer& layer = *made.value();
  layer.share_ = std::move(share);
  layer.constant_ = {packed, layer.fabric_->stepped() ? nullptr : layer.statistics_of(planes)};
  layer.note_sparsity(packed->sparsity());
  return made;
}

Status check_shape(const LayerSpec& spec, std::uint64_t outputs, std::uint64_t depth) {
  if (outputs == spec.outputs && depth == spec.depth) return {};
  return Error{ErrorCode::kInvalidArgument,
               "layer '" + spec.name + "' is of " + std::to_string(spec.outputs) + " x " +
                   std::to_string(spec.depth) + " weights, and was given " +
                   std::to_string(outputs) + " x " + std::to_string(depth)};
}

Layer::Packed Layer::adopt(const QuantizedWeights& weights, const Executor& executor) {
  if (!packed_.weights) share_ = WeightShare(spec_.outputs * spec_.depth);
  auto made =
      std::make_shared<PackedWeights>(weights, preferred_layout(spec_.activation), executor);
  // Weights that moved without moving a trit are, to the device, the same.
  std::shared_ptr<const LaneStatistics> statistics;
  if (packed_.weights && made->has_trits_of(*packed_.weights)) {
    made->share_serial(*packed_.weights);
    statistics = packed_.statistics;
  } else if (fabric_->counting() && !fabric_->stepped()) {
    statistics = statistics_of(weights.planes.view());
  }
  Packed before = std::exchange(packed_, {});
  packed_.weights = std::move(made);
  packed_.statistics = std::move(statistics);
  return before;
}

std::shared_ptr<const LaneStatistics> Layer::statistics_of(BitPlaneView weights) const {
  return std::make_shared<const LaneStatistics>(weights, fabric_->config().geometry.lanes(),
                                                tile_slots_);
}

// A portion at a time, so that the weights are never all unpacked.
std::shared_ptr<const LaneStatistics> Layer::statistics_of(const PackedWeights& weights) const {
  constexpr std::size_t kRows = 8 * kPanelOutputs;
  const std::size_t outputs = weights.panels().outputs;
  auto made = std::make_shared<LaneStatistics>(outputs, weights.panels().depth,
                                               fabric_->config().geometry.lanes(), tile_slots_);
  for (std::size_t row = 0; row < outputs; row += kRows) {
    made->add_rows(weights.rows(row, std::min(kRows, outputs - row)).view());
  }
  made->finish();
  return made;
}

Layer::Snapshot Layer::take_snapshot(const Executor& executor) {
  const WeightLayout layout = preferred_layout(spec_.activation);
  if (packed_.weights->panels().layout != layout) {
    packed_.weights = std::make_shared<const PackedWeights>(*packed_.weights, layout, executor);
  }
  if (!packed_.statistics && fabric_->counting() && !fabric_->stepped()) {
    packed_.statistics = statistics_of(*packed_.weights);
  }
  return {packed_.weights, packed_.statistics};
}

bool Layer::Packed::is_of(const WeightSource& source) const noexcept {
  if (!weights || data != source.data || type != source.type || version != source.version ||
      (owner && !holds(owner->memory(), source))) {
    return false;
  }
  return source.by_content || sample == spread_sample(source);
}

Result<Layer::Snapshot> Layer::snapshot(const WeightSource& source, const Executor& executor) {
  if (spec_.quantizer == WeightQuantizer::kCustom) {
    return Error{ErrorCode::kInvalidArgument,
                 "layer '" + spec_.name + "' has a quantizer of its own: it takes trits"};
  }
  if (auto s = check_shape(spec_, source.outputs, source.depth); !s) return std::move(s).error();
  Packed before;  // ends after the lock has
  std::shared_ptr<const RetainedStorage> owner_before;
  const std::scoped_lock lock(mutex_);
  // The first comparison after training is by content too: a write through `.data` between the last
  // training forward and eval() raises no version.
  const bool by_content = source.by_content || packed_.seen_by_content;
  const bool same_place = packed_.is_of(source);
  if (same_place && !by_content) return take_snapshot(executor);

  std::optional<std::uint64_t> fingerprint;
  if (by_content) fingerprint = kernels::fingerprint(source.data, source_bytes(source));
  const bool same_content = by_content && packed_.weights && packed_.type == source.type &&
                            packed_.fingerprint == fingerprint;
  if (!same_content) {
    before = adopt(quantize_weights(source, spec_.quantizer, executor), executor);
    packed_.fingerprint = fingerprint;
  }
  packed_.data = source.data;
  packed_.type = source.type;
  packed_.version = source.version;
  packed_.sample = spread_sample(source);
  packed_.seen_by_content = source.by_content;
  if (!same_place || !packed_.owner) {
    owner_before =
        std::exchange(packed_.owner, source.owner == nullptr ? nullptr : source.owner->retain());
  }
  return take_snapshot(executor);
}

// What snapshot() would give if it had nothing to do.
std::optional<Layer::Snapshot> Layer::packed_snapshot(const WeightSource& source) const {
  if (spec_.quantizer == WeightQuantizer::kCustom || source.outputs != spec_.outputs ||
      source.depth != spec_.depth) {
    return std::nullopt;
  }
  const std::scoped_lock lock(mutex_);
  // Nobody has asked whether the source still has its memory: only the held storage can say.
  if (!packed_.owner || !packed_.is_of(source) || packed_.seen_by_content != source.by_content ||
      packed_.weights->panels().layout != preferred_layout(spec_.activation) ||
      (!packed_.statistics && fabric_->counting() && !fabric_->stepped())) {
    return std::nullopt;
  }
  if (source.by_content &&
      packed_.fingerprint != kernels::fingerprint(source.data, source_bytes(source))) {
    return std::nullopt;
  }
  return Snapshot{packed_.weights, packed_.statistics};
}

Result<Layer::Snapshot> Layer::snapshot(const TritSource& source, const Executor& executor) {
  if (constant_.weights) {
    return Error{ErrorCode::kInvalidArgument,
                 "layer '" + spec_.name + "' has constant weights: it takes no others"};
  }
  if (auto s = check_shape(spec_, source.outputs, source.depth); !s) return std::move(s).error();
  Packed before;  // ends after the lock has
  const std::scoped_lock lock(mutex_);
  const std::uint64_t trits = kernels::fingerprint(source.trits, source.outputs * source.depth);
  const std::uint64_t scales =
      kernels::fingerprint(source.scales, source.scale_count * sizeof(double));
  const std::uint64_t nans =
      source.nan_outputs == nullptr ? 0 : kernels::fingerprint(source.nan_outputs, source.outputs);
  const std::uint64_t fingerprint = trits ^ std::rotl(scales, 21) ^ std::rotl(nans, 42);
  if (!packed_.weights || packed_.fingerprint != fingerprint) {
    const auto weights = read_trits(source);
    if (!weights) return weights.error();
    before = adopt(weights.value(), executor);
    packed_.fingerprint = fingerprint;
  }
  return take_snapshot(executor);
}

Status Layer::run(const Snapshot& snapshot, const LinearArgs& args, const Executor& executor) {
  if (args.samples == 0 || spec_.outputs == 0) return {};
  if (spec_.depth == 0) {  // an empty product: bias alone, and nothing for the device to do
    const std::vector<std::int32_t> zeros(spec_.outputs);
    const std::vector<std::uint8_t> no_nans(args.samples);
    const SampleScales none{nullptr, no_nans.data()};
    for (std::size_t row = 0; row < args.samples; ++row) {
      apply_epilogue({.row = row, .row_end = row + 1, .output = 0, .output_end = spec_.outputs},
                     zeros.data(), *snapshot.weights, none, args);
    }
    return {};
  }
  InputQuantizer input(args, spec_.depth, spec_.activation, executor);
  const Fabric::Forward work{
      .weights = snapshot.weights, .statistics = snapshot.statistics.get(), .input = input};
  if (fabric_->stepped()) {
    std::vector<std::int32_t> sums(args.samples * spec_.outputs);
    if (auto s = fabric_->forward(*id_, work, executor, sums); !s) return s;
    apply_epilogue({.row = 0, .row_end = args.samples, .output = 0, .output_end = spec_.outputs},
                   sums.data(), *snapshot.weights, input.scales(), args);
    return {};
  }
  if (auto s = fabric_->forward(*id_, work, executor, {}); !s) return s;
  multiply(input, *snapshot.weights, args, executor);
  return {};
}

Status Layer::forward(const WeightSource& weights, const LinearArgs& args,
                      const Executor& executor) {
  auto taken = snapshot(weights, executor);
  if (!taken) return std::move(taken).error();
  return run(taken.value(), args, executor);
}

bool Layer::forward_packed(const WeightSource& weights, const LinearArgs& args,
                           const Executor& executor) {
  const auto taken = packed_snapshot(weights);
  return taken && run(*taken, args, executor).ok();
}

Status Layer::forward(const TritSource& weights, const LinearArgs& args, const Executor& executor) {
  auto taken = snapshot(weights, executor);
  if (!taken) return std::move(taken).error();
  return run(taken.value(), args, executor);
}

Status Layer::forward(const LinearArgs& args, const Executor& executor) {
  if (!constant_.weights) {
    return Error{
        ErrorCode::kInvalidArgument,
        "layer '" + spec_.name + "' has no constant weights: it takes them with a forward"};
  }
  return run(constant_, args, executor);
}

Result<bool> Layer::prefetch(const WeightSource& weights, const Executor& executor) {
  auto taken = snapshot(weights, executor);
  if (!taken) return std::move(taken).error();
  if (spec_.outputs == 0 || spec_.depth == 0) return true;  // nothing to load
  return fabric_->prefetch(*id_, taken.value().weights);
}

Result<bool> Layer::prefetch(const TritSource& weights, const Executor& executor) {
  auto taken = snapshot(weights, executor);
  if (!taken) return std::move(taken).error();
  if (spec_.outputs == 0 || spec_.depth == 0) return true;  // nothing to load
  return fabric_->prefetch(*id_, taken.value().weights);
}

void Layer::refresh() {
  Packed before;  // ends after the lock has
  const std::scoped_lock lock(mutex_);
  before = std::exchange(packed_, {});
  share_ = {};
}

std::shared_ptr<const PackedWeights> Layer::packed_weights() const {
  if (constant_.weights) return constant_.weights;
  const std::scoped_lock lock(mutex_);
  return packed_.weights;
}

std::size_t Layer::packed_bytes() const {
  const auto weights = packed_weights();
  return weights ? weights->bytes() : 0;
}

std::optional<WeightLayout> Layer::packed_layout() const {
  const auto weights = packed_weights();
  return weights ? std::optional(weights->panels().layout) : std::nullopt;
}

}  // namespace tfmbs::runtime
