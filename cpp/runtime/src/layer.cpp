#include "tfmbs/runtime/layer.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <utility>
#include <vector>

#include "fork.hpp"
#include "tfmbs/execution/workspace.hpp"
#include "tfmbs/kernels/fingerprint.hpp"
#include "tfmbs/linear/activation_quantizer.hpp"
#include "tfmbs/linear/product.hpp"

namespace tfmbs::runtime {
namespace {

// In the file that every program with layers links.
// NOLINTNEXTLINE(bugprone-throwing-static-initialization): what it would throw is no memory
[[maybe_unused]] const bool forks_are_handled = handle_forks();

using device::Account;
using device::ActivationCounter;
using device::LaneStatistics;
using execution::Executor;
using execution::Scratch;
using execution::SerialExecutor;
using linear::LinearArgs;
using linear::PackedWeights;
using linear::TritSource;
using linear::WeightQuantizer;

// Lets a device count the blocks that the quantizer makes.
class CountingVisitor final : public linear::BlockVisitor {
 public:
  explicit CountingVisitor(ActivationCounter& counter) noexcept : counter_(counter) {}
  void visit(std::size_t begin, std::size_t end, std::size_t block_rows,
             const linear::QuantizeRows& quantize) override {
    counter_.count(begin, end, block_rows, quantize);
  }

 private:
  ActivationCounter& counter_;
};

std::shared_ptr<const LaneStatistics> statistics_of(const Account& account, BitPlaneView weights) {
  return std::make_shared<const LaneStatistics>(account.statistics_of(weights));
}

// A portion at a time, so that the weights are never all unpacked.
std::shared_ptr<const LaneStatistics> statistics_of(const Account& account,
                                                    const PackedWeights& weights) {
  constexpr std::size_t kRows = 8 * kPanelOutputs;
  auto made = std::make_shared<LaneStatistics>(account.begin_statistics());
  for (std::size_t row = 0; row < weights.outputs(); row += kRows) {
    made->add_rows(weights.rows(row, std::min(kRows, weights.outputs() - row)).view());
  }
  made->finish();
  return made;
}

Error takes_trits(const LayerSpec& spec) {
  return {ErrorCode::kInvalidArgument,
          "layer '" + spec.identity.name + "' has a quantizer of its own: it takes trits"};
}

}  // namespace

Result<std::shared_ptr<Layer>> Layer::make(LayerSpec spec, std::shared_ptr<device::Fabric> fabric,
                                           const Layer* replacing) {
  if (fabric) {
    spec.identity.fabric = fabric->spec();
  } else {
    spec.identity.fabric.reset();
  }
  // The layer is there before it enters: where memory runs out, it has not entered.
  auto layer = std::shared_ptr<Layer>(new Layer(std::move(spec)));
  if (!fabric) return layer;
  LayerSpec& its = layer->spec_;
  auto account = Account::enter({.name = its.identity.name,
                                 .outputs = its.outputs,
                                 .depth = its.depth,
                                 .planes = mode_of(its.activation).planes,
                                 .weight_address = its.identity.weight_address,
                                 .tile_mask = its.identity.tile_mask,
                                 .group_depth = its.group},
                                fabric, replacing == nullptr ? nullptr : replacing->account_.get());
  if (!account) return std::move(account).error();
  layer->account_ = std::move(account).value();
  layer->fabric_ = std::move(fabric);
  its.identity.name = layer->account_->name();
  return layer;
}

Result<std::shared_ptr<Layer>> Layer::make_constant(LayerSpec spec,
                                                    std::shared_ptr<device::Fabric> fabric,
                                                    const linear::QuantizedWeights& weights) {
  const BitPlaneView planes = weights.planes.view();
  if (auto s = check_shape(spec, planes.rows, planes.trits); !s) return std::move(s).error();
  spec.quantizer = WeightQuantizer::kCustom;
  linear::WeightShare share(planes.rows * planes.trits);
  auto packed = std::make_shared<const LayerWeights>(
      PackedWeights(weights, linear::preferred_layout(spec.activation), SerialExecutor{}));
  auto made = make(std::move(spec), std::move(fabric));
  if (!made) return std::move(made).error();
  Layer& layer = *made.value();
  layer.share_ = std::move(share);
  const bool counted = layer.fabric_ && layer.fabric_->counts_in_closed_form();
  layer.constant_ = {packed, counted ? statistics_of(*layer.account_, planes) : nullptr};
  layer.note_sparsity(packed->sparsity());
  return made;
}

Status check_shape(const LayerSpec& spec, std::uint64_t outputs, std::uint64_t depth) {
  if (outputs == spec.outputs && depth == spec.depth) return {};
  return Error{ErrorCode::kInvalidArgument,
               "layer '" + spec.identity.name + "' is of " + std::to_string(spec.outputs) + " x " +
                   std::to_string(spec.depth) + " weights, and was given " +
                   std::to_string(outputs) + " x " + std::to_string(depth) +
                   ": a weight of another shape needs a new layer"};
}

// --- the packed weights ------------------------------------------------------------------------

bool Layer::lacks_statistics() const noexcept {
  return account_ && !packed_.statistics && account_->wants_statistics();
}

Layer::Snapshot Layer::adopt(const linear::QuantizedWeights& weights, const Executor& executor) {
  // First: the layer's own weights count where its packing is chosen.
  if (!packed_.weights) share_ = linear::WeightShare(spec_.outputs * spec_.depth);
  auto made = std::make_shared<LayerWeights>(
      PackedWeights(weights, linear::preferred_layout(spec_.activation), executor));
  std::shared_ptr<const LaneStatistics> statistics;
  if (!shares_trits(*made) && account_ && account_->wants_statistics()) {
    statistics = statistics_of(*account_, weights.planes.view());
  }
  return adopt(std::move(made), std::move(statistics));
}

bool Layer::shares_trits(const LayerWeights& made) const {
  return packed_.weights && made.packed().has_trits_of(packed_.weights->packed());
}

// Weights that moved without moving a trit are, to the device, the same.
Layer::Snapshot Layer::adopt(std::shared_ptr<LayerWeights> made,
                             std::shared_ptr<const LaneStatistics> statistics) {
  if (!statistics && shares_trits(*made)) {
    made->share_serial(*packed_.weights);
    statistics = packed_.statistics;
  }
  return std::exchange(packed_, {std::move(made), std::move(statistics)});
}

Layer::Snapshot Layer::take_snapshot() {
  if (lacks_statistics()) {
    packed_.statistics = statistics_of(*account_, packed_.weights->packed());
  }
  return packed_;
}

Result<Layer::Snapshot> Layer::snapshot(const WeightSource& source, const Executor& executor) {
  if (spec_.quantizer == WeightQuantizer::kCustom) return takes_trits(spec_);
  if (auto s = check_shape(spec_, source.outputs, source.depth); !s) return std::move(s).error();
  Discarded before;  // ends after the lock has
  const std::scoped_lock lock(mutex_);
  const WeightWatcher::Look look = watcher_.look(source);
  if (look.verdict == WeightWatcher::Verdict::kCurrent) return take_snapshot();
  if (look.verdict == WeightWatcher::Verdict::kChanged) {
    // Where memory runs out on the way, nothing is known of what is packed.
    before.owner = watcher_.forget();
    trits_.reset();
    before.packed =
        adopt(linear::quantize_weights(source.floats(), spec_.quantizer, executor), executor);
    static_cast<void>(watcher_.note(source, look));
  } else {
    before.owner = watcher_.note(source, look);
  }
  return take_snapshot();
}

// What snapshot() would give if it had nothing to do.
std::optional<Layer::Snapshot> Layer::packed_snapshot(const WeightSource& source) const {
  if (source.outputs != spec_.outputs || source.depth != spec_.depth) return std::nullopt;
  const std::scoped_lock lock(mutex_);
  if (lacks_statistics() || !watcher_.is_current(source)) return std::nullopt;
  return packed_;
}

Result<Layer::Snapshot> Layer::snapshot(const TritSource& source, const Executor& executor,
                                        const WeightSource* quantized) {
  if (constant_.weights) {
    return Error{ErrorCode::kInvalidArgument,
                 "layer '" + spec_.identity.name + "' has constant weights: it takes no others"};
  }
  if (auto s = check_shape(spec_, source.outputs, source.depth); !s) return std::move(s).error();
  Discarded before;  // ends after the lock has
  const std::scoped_lock lock(mutex_);
  const std::uint64_t trits = kernels::fingerprint(source.trits, source.outputs * source.depth);
  const std::uint64_t scales =
      kernels::fingerprint(source.scales, source.scale_count * sizeof(double));
  const std::uint64_t nans =
      source.nan_outputs == nullptr ? 0 : kernels::fingerprint(source.nan_outputs, source.outputs);
  const std::uint64_t fingerprint = trits ^ std::rotl(scales, 21) ^ std::rotl(nans, 42);
  if (!packed_.weights || trits_ != fingerprint) {
    const auto weights = linear::read_trits(source);
    if (!weights) return weights.error();
    before.owner = watcher_.forget();
    trits_.reset();
    before.packed = adopt(weights.value(), executor);
    trits_ = fingerprint;
  }
  if (quantized != nullptr) {
    auto owner = watcher_.note(*quantized, watcher_.look(*quantized));
    if (!before.owner) before.owner = std::move(owner);
  }
  return take_snapshot();
}

namespace {

// A packed tensor's memory as the watcher takes it: it looks at bytes, in fours.
WeightSource watched(const void* data, std::uint64_t bytes, std::optional<std::int64_t> version,
                     const StorageOwner* owner) noexcept {
  return {.data = data,
          .type = kernels::FloatType::kFloat32,
          .outputs = 1,
          .depth = bytes / sizeof(float),
          .version = version,
          .by_content = false,
          .read_only = true,
          .owner = owner};
}

// What keeps packed weights' memory.
struct PackedOwner {
  std::shared_ptr<const RetainedStorage> panels;
  std::shared_ptr<const RetainedStorage> scales;
  AlignedPacked copies;
};

}  // namespace

Result<Layer::Snapshot> Layer::snapshot(const PackedSource& source, const Executor& executor) {
  if (auto s = check_shape(spec_, source.panels.outputs, source.panels.depth); !s) {
    return std::move(s).error();
  }
  if (auto s = check_packed(source); !s) return std::move(s).error();
  if (source.group != spec_.group) {
    return Error{ErrorCode::kInvalidArgument, "layer '" + spec_.identity.name + "' has groups of " +
                                                  std::to_string(spec_.group) +
                                                  " inputs, and was given scales for " +
                                                  std::to_string(source.group)};
  }
  const WeightSource panels = watched(source.panels.bytes, source.panels.size(),
                                      source.panels_version, source.panels_owner);
  const WeightSource scales = watched(source.scales.data(), source.scales.size_bytes(),
                                      source.scales_version, source.scales_owner);
  Discarded before;  // ends after the lock has
  const std::scoped_lock lock(mutex_);
  const WeightWatcher::Look at_panels = watcher_.look(panels);
  const WeightWatcher::Look at_scales = scales_watcher_.look(scales);
  if (at_panels.verdict == WeightWatcher::Verdict::kCurrent &&
      at_scales.verdict == WeightWatcher::Verdict::kCurrent) {
    return take_snapshot();
  }
  before.owner = watcher_.forget();
  before.scales_owner = scales_watcher_.forget();
  trits_.reset();
  auto owner = std::make_shared<PackedOwner>();
  if (source.panels_owner != nullptr) owner->panels = source.panels_owner->retain();
  if (source.scales_owner != nullptr) owner->scales = source.scales_owner->retain();
  if (!packed_.weights) share_ = linear::WeightShare(spec_.outputs * spec_.depth);
  std::vector<double> values;
  if (source.group == 0) values.assign(source.scales.begin(), source.scales.end());
  owner->copies = align(source);
  auto borrowed = PackedWeights::borrow(owner->copies.panels, owner->copies.groups,
                                        std::move(values), owner, executor);
  if (!borrowed) return std::move(borrowed).error();
  auto made = std::make_shared<LayerWeights>(std::move(borrowed).value());
  // Weights written in place are the memory of those before: comparing would find them the same.
  const bool in_place = at_panels.verdict != WeightWatcher::Verdict::kCurrent && packed_.weights &&
                        packed_.weights->packed().panels().bytes == made->packed().panels().bytes;
  before.packed = in_place ? std::exchange(packed_, {}) : Snapshot{};
  if (auto replaced = adopt(std::move(made), nullptr); !in_place) before.packed = replaced;
  static_cast<void>(watcher_.note(panels, at_panels));
  static_cast<void>(scales_watcher_.note(scales, at_scales));
  return take_snapshot();
}

void Layer::refresh() {
  Discarded before;  // ends after the lock has
  const std::scoped_lock lock(mutex_);
  before.packed = std::exchange(packed_, {});
  before.owner = watcher_.forget();
  before.scales_owner = scales_watcher_.forget();
  trits_.reset();
  share_ = {};
}

void Layer::expect_weights() {
  const std::scoped_lock lock(mutex_);
  if (packed_.weights || constant_.weights) return;
  share_ = linear::WeightShare(spec_.outputs * spec_.depth);
}

template <typename Source>
Status Layer::prepare_from(const Source& weights, const Executor& executor) {
  auto taken = snapshot(weights, executor);
  if (!taken) return std::move(taken).error();
  const WeightLayout layout = linear::preferred_layout(spec_.activation);
  const LayerWeights& packed = *taken.value().weights;
  if (packed.packed().layout() == layout) return {};
  auto made = std::make_shared<LayerWeights>(PackedWeights(packed.packed(), layout, executor));
  made->share_serial(packed);
  std::shared_ptr<const LayerWeights> next = std::move(made);
  const std::scoped_lock lock(mutex_);  // `next` then holds the old ones, and ends after it
  if (packed_.weights == taken.value().weights) packed_.weights.swap(next);
  return {};
}

Status Layer::prepare(const WeightSource& weights, const Executor& executor) {
  return prepare_from(weights, executor);
}
Status Layer::prepare(const TritSource& weights, const Executor& executor) {
  return prepare_from(weights, executor);
}

// --- the forward pass --------------------------------------------------------------------------

Status Layer::run(const Snapshot& snapshot, const LinearArgs& args, const Executor& executor) {
  if (args.samples == 0 || spec_.outputs == 0) return {};
  const PackedWeights& weights = snapshot.weights->packed();
  if (spec_.depth == 0) {  // nothing for the device to do
    linear::bias_alone(weights, args);
    return {};
  }
  Scratch scratch;
  linear::ActivationQuantizer input(args, spec_.depth, spec_.activation, scratch);
  if (!account_) {
    input.quantize(executor);
    linear::multiply(input, weights, args, executor);
    return {};
  }
  device::Fabric::Ticket ticket;
  if (auto s = account_->admit({snapshot.weights, snapshot.statistics.get()}, args.samples, scratch,
                               ticket);
      !s) {
    return s;
  }
  const device::ActivationNeeds needs = ticket.needs();
  std::optional<ActivationCounter> counter;
  std::optional<CountingVisitor> visitor;
  if (needs.counts) {
    counter.emplace(needs, args.samples, spec_.depth, scratch);
    visitor.emplace(*counter);
  }
  input.quantize(executor, visitor ? &*visitor : nullptr, needs.planes);
  device::LayerInput given{.activations = input.activations(),
                           .counts = counter ? &counter->counts() : nullptr};
  std::vector<std::int32_t> sums;
  const device::Products products = fabric_->products();
  if (products != device::Products::kKernels) {
    sums.resize(linear::scale_groups(weights) * args.samples * spec_.outputs);
  }
  if (products == device::Products::kDriver) {
    given.sums = sums;
  } else {
    linear::multiply(input, weights, args, executor);
  }
  if (products == device::Products::kBoth) {
    linear::multiply_sums(input, weights, sums);
    given.products = sums;
  }
  if (auto s = ticket.run(given, executor); !s) return s;
  if (products == device::Products::kDriver) linear::apply_epilogue(sums, input, weights, args);
  ticket.commit();
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

Status Layer::forward(const TritSource& weights, const LinearArgs& args, const Executor& executor,
                      const WeightSource* quantized) {
  auto taken = snapshot(weights, executor, quantized);
  if (!taken) return std::move(taken).error();
  return run(taken.value(), args, executor);
}

Status Layer::forward(const PackedSource& weights, const LinearArgs& args,
                      const Executor& executor) {
  auto taken = snapshot(weights, executor);
  if (!taken) return std::move(taken).error();
  return run(taken.value(), args, executor);
}

Status Layer::sums(const PackedSource& weights, const std::int8_t* values, std::size_t samples,
                   std::int32_t* out, const Executor& executor) {
  if (spec_.activation != linear::Activation::kInt8 || spec_.group != 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "layer '" + spec_.identity.name +
                     "' gives no sums: that takes int8 activations and no group scales"};
  }
  auto taken = snapshot(weights, executor);
  if (!taken) return std::move(taken).error();
  const std::size_t count = samples * spec_.outputs;
  if (count == 0 || spec_.depth == 0) {
    std::fill_n(out, count, 0);
    return {};
  }
  linear::multiply_values(values, samples, taken.value().weights->packed(), out, executor);
  return {};
}

Status Layer::forward(const LinearArgs& args, const Executor& executor) {
  if (!constant_.weights) {
    return Error{ErrorCode::kInvalidArgument,
                 "layer '" + spec_.identity.name +
                     "' has no constant weights: it takes them with a forward pass"};
  }
  return run(constant_, args, executor);
}

// --- the device ----------------------------------------------------------------------------------

template <typename Source>
Result<bool> Layer::prefetch_from(const Source& weights, const Executor& executor) {
  if (!account_) return false;
  auto taken = snapshot(weights, executor);
  if (!taken) return std::move(taken).error();
  if (spec_.outputs == 0 || spec_.depth == 0) return true;  // nothing to load
  return account_->prefetch({taken.value().weights, taken.value().statistics.get()});
}

Result<bool> Layer::prefetch(const WeightSource& weights, const Executor& executor) {
  return prefetch_from(weights, executor);
}
Result<bool> Layer::prefetch(const TritSource& weights, const Executor& executor) {
  return prefetch_from(weights, executor);
}

Result<bool> Layer::prefetch(const PackedSource& weights, const Executor& executor) {
  return prefetch_from(weights, executor);
}

Status Layer::set_pinned(bool pinned) {
  if (account_) return account_->set_pinned(pinned);
  if (!pinned) return {};
  return Error{ErrorCode::kPlacement,
               "layer '" + spec_.identity.name + "' cannot be pinned: it has no device"};
}

void Layer::note_sparsity(double sparsity) {
  if (account_) return account_->note_sparsity(sparsity);
  const std::scoped_lock lock(mutex_);
  sparsity_ = sparsity;
}

device::LayerProfile Layer::profile() const {
  if (account_) return account_->profile();
  const std::scoped_lock lock(mutex_);
  return {.name = spec_.identity.name,
          .sparsity = sparsity_,
          .tile_mask = spec_.identity.tile_mask != 0
                           ? spec_.identity.tile_mask
                           : placement::default_tile_mask(Geometry{}, spec_.outputs)};
}

std::shared_ptr<const LayerWeights> Layer::packed_weights() const {
  if (constant_.weights) return constant_.weights;
  const std::scoped_lock lock(mutex_);
  return packed_.weights;
}

bool Layer::holds_storage(const void* weights) const {
  const std::scoped_lock lock(mutex_);
  return watcher_.retains(weights);
}

std::size_t Layer::packed_bytes() const {
  const auto weights = packed_weights();
  return weights ? weights->packed().bytes() : 0;
}

std::optional<WeightLayout> Layer::packed_layout() const {
  const auto weights = packed_weights();
  return weights ? std::optional(weights->packed().layout()) : std::nullopt;
}

}  // namespace tfmbs::runtime
