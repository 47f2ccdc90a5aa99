#include "tfmbs/runtime/fabric.hpp"

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

#include "fabric_registry.hpp"
#include "tfmbs/runtime/stepped_forward.hpp"

namespace tfmbs::runtime {
namespace {

Error closed_error(const FabricSpec& spec) {
  return {ErrorCode::kClosed, "fabric '" + spec.name + "' is closed"};
}

// Another thread moved the layer while this one was in its forward.
Error gone_error(const FabricSpec& spec) {
  return {ErrorCode::kGone,
          "the layer has left fabric '" + spec.name + "': it was moved, renamed or deleted"};
}

// Undoes something unless it was kept: for what an error or an exception would leave half done.
template <typename Undo>
class Unless {
 public:
  explicit Unless(Undo undo) noexcept : undo_(std::move(undo)) {}
  ~Unless() {
    if (!kept_) undo_();
  }
  Unless(const Unless&) = delete;
  Unless& operator=(const Unless&) = delete;
  void keep() noexcept { kept_ = true; }

 private:
  Undo undo_;
  bool kept_{false};
};

fabric::Counters operator-(fabric::Counters after, const fabric::Counters& before) noexcept {
  for (const auto& field : fabric::kCounterFields) after.*field.member -= before.*field.member;
  return after;
}

}  // namespace

Fabric::Fabric(FabricSpec spec)
    : spec_(std::move(spec)),
      device_(std::make_unique<fabric::Device>(spec_.config)),
      bank_map_(spec_.config.geometry),
      counts_(spec_.config.geometry.tiles()),
      queue_(std::make_unique<fabric::TaskQueue>([this](const fabric::TaskDescriptor& task) {
        const std::scoped_lock lock(mutex_);
        if (!device_) return Status(closed_error(spec_));
        materialize();
        return device_->run(task);
      })) {}

Fabric::~Fabric() {
  FabricRegistry::instance().remove(*this);
  queue_.reset();  // its worker uses the device
}

const std::shared_ptr<Fabric>& Fabric::default_fabric() {
  // Never destroyed: layers and handles may outlive static destruction.
  static const auto* const fabric = new std::shared_ptr<Fabric>(
      FabricRegistry::instance().add(std::shared_ptr<Fabric>(new Fabric(FabricSpec{}))));
  return *fabric;
}

std::shared_ptr<Fabric> Fabric::open(Engine engine, const fabric::FabricConfig& config) {
  auto& registry = FabricRegistry::instance();
  return registry.add(
      std::shared_ptr<Fabric>(new Fabric({registry.unique_name(), engine, config})));
}

std::shared_ptr<Fabric> Fabric::find_or_open(const FabricSpec& spec) {
  if (spec.name == kDefaultFabricName) return default_fabric();
  auto& registry = FabricRegistry::instance();
  if (auto found = registry.find(spec)) return found;
  return registry.find_or_add(std::shared_ptr<Fabric>(new Fabric(spec)));
}

Status Fabric::close() {
  if (is_default()) {
    return Error{ErrorCode::kClosed, "the default fabric cannot be closed"};
  }
  queue_->drain();
  const std::scoped_lock lock(mutex_);
  closed_ = true;
  device_.reset();
  return {};
}

Result<std::unique_lock<std::mutex>> Fabric::enter_device() {
  queue_->drain();
  std::unique_lock lock(mutex_);
  if (!device_) return closed_error(spec_);
  return lock;
}

void Fabric::materialize() { images_.materialize(*device_); }

Status Fabric::load(std::uint64_t address, std::span<const std::uint32_t> words) {
  auto lock = enter_device();
  if (!lock) return std::move(lock).error();
  materialize();
  if (auto s = device_->load(address, words); !s) return s;
  const auto where = spec_.config.geometry.locate(address, 4 * words.size());
  if (where && where.value().region == Region::kBankA) {
    count_evictions(bank_map_.overwrite(std::uint64_t{1} << where.value().tile, where.value().word,
                                        static_cast<std::uint32_t>(words.size())));
  }
  return {};
}

Status Fabric::read(std::uint64_t address, std::span<std::uint32_t> words) {
  auto lock = enter_device();
  if (!lock) return std::move(lock).error();
  materialize();
  return device_->read(address, words);
}

Status Fabric::run(const fabric::TaskDescriptor& task) { return run_batch({&task, 1}); }

Status Fabric::run_batch(std::span<const fabric::TaskDescriptor> tasks) {
  auto lock = enter_device();
  if (!lock) return std::move(lock).error();
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    if (auto s = fabric::validate(tasks[i], spec_.config.geometry); !s) {
      if (tasks.size() == 1) return s;
      Error error = std::move(s).error();
      error.message = "task " + std::to_string(i) + " of the batch: " + error.message;
      return error;
    }
  }
  materialize();
  for (const auto& task : tasks) {
    if (auto s = device_->run(task); !s) return s;
  }
  return {};
}

Result<std::shared_ptr<fabric::TaskTicket>> Fabric::submit(fabric::TaskDescriptor task) {
  if (closed()) return closed_error(spec_);
  if (auto s = fabric::validate(task, spec_.config.geometry); !s) return std::move(s).error();
  return queue_->submit(std::move(task));
}

Status Fabric::wait(const std::shared_ptr<fabric::TaskTicket>& ticket) {
  return queue_->wait(ticket);
}

bool Fabric::is_done(const std::shared_ptr<fabric::TaskTicket>& ticket) const {
  return queue_->is_done(ticket);
}

namespace {
Error tile_error(std::int64_t tile, std::uint32_t tiles, const char* also) {
  return {ErrorCode::kAddress, "tile " + std::to_string(tile) +
                                   " does not exist; allowed are 0 to " +
                                   std::to_string(tiles - 1) + also};
}
}  // namespace

Result<std::vector<std::int32_t>> Fabric::results(std::int64_t tile) {
  auto lock = enter_device();
  if (!lock) return std::move(lock).error();
  const std::uint32_t tiles = spec_.config.geometry.tiles();
  if (tile < -1 || tile >= std::int64_t{tiles}) return tile_error(tile, tiles, ", or -1 for all");
  materialize();
  std::vector<std::int32_t> values;
  for (std::uint32_t t = 0; t < tiles; ++t) {
    if (tile != -1 && tile != std::int64_t{t}) continue;
    const auto lanes = device_->results(t);
    values.insert(values.end(), lanes.begin(), lanes.end());
  }
  return values;
}

Result<Profile> Fabric::profile() {
  auto lock = enter_device();
  if (!lock) return std::move(lock).error();
  Profile profile;
  profile.total = device_->counters();
  const auto tiles = device_->tile_counters();
  profile.tiles.assign(tiles.begin(), tiles.end());
  std::vector<placement::LayerId> ids;
  ids.reserve(layers_.size());
  for (const auto& [id, record] : layers_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  for (const placement::LayerId id : ids)
    profile.layers.push_back(layer_profile_locked(id, layers_.at(id)));
  return profile;
}

Result<fabric::TileCounters> Fabric::profile_tile(std::int64_t tile) {
  auto lock = enter_device();
  if (!lock) return std::move(lock).error();
  const std::uint32_t tiles = spec_.config.geometry.tiles();
  if (tile < 0 || tile >= std::int64_t{tiles}) return tile_error(tile, tiles, "");
  return device_->tile_counters()[static_cast<std::size_t>(tile)];
}

Status Fabric::reset_counters() {
  auto lock = enter_device();
  if (!lock) return std::move(lock).error();
  device_->reset_counters();
  for (auto& [id, record] : layers_) record.counters = {};
  return {};
}

void Fabric::set_telemetry(bool on) {
  queue_->drain();
  const std::scoped_lock lock(mutex_);
  if (!device_) return;
  device_->set_counting(on);
  counting_ = on;
}

bool Fabric::telemetry() const {
  const std::scoped_lock lock(mutex_);
  return device_ && device_->counting();
}

Result<placement::LayerId> Fabric::enter(LayerSpec& spec,
                                         std::optional<placement::LayerId> replacing) {
  auto lock = enter_device();
  if (!lock) return std::move(lock).error();
  const Geometry& geometry = spec_.config.geometry;
  if ((spec.tile_mask & ~geometry.all_tiles()) != 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "layer '" + spec.name + "': tile_mask " + std::to_string(spec.tile_mask) +
                     " names tiles beyond the " + std::to_string(geometry.tiles()) +
                     " of the fabric; allowed are 1 to " + std::to_string(geometry.all_tiles())};
  }
  if (spec.depth > kMaxDepth) {
    return Error{ErrorCode::kInvalidArgument, "layer '" + spec.name + "': in_features " +
                                                  std::to_string(spec.depth) + " exceeds " +
                                                  std::to_string(kMaxDepth)};
  }
  const std::uint64_t mask =
      spec.tile_mask != 0 ? spec.tile_mask : placement::default_tile_mask(geometry, spec.outputs);
  const auto taken = [&](const std::string& name) {
    return std::any_of(layers_.begin(), layers_.end(), [&](const auto& entry) {
      return entry.first != replacing && entry.second.name == name;
    });
  };
  std::string name = spec.name;
  for (std::uint64_t suffix = 1; taken(name); ++suffix) {
    name = spec.name + "-" + std::to_string(suffix);
  }
  const placement::LayerId id = next_layer_;
  std::vector<placement::LayerId> evicted;
  if (auto s = bank_map_.enter(id, name, spec.outputs, spec.depth, mask, spec.weight_address,
                               evicted, replacing);
      !s) {
    return std::move(s).error();
  }
  Unless entered([&]() noexcept { bank_map_.leave(id); });
  const auto planes =
      spec.activation == Activation::kInt8 ? static_cast<std::uint32_t>(kernels::kInt8Planes) : 1U;
  layers_.emplace(id, LayerRecord{.name = name, .shape = {spec.outputs, spec.depth, planes}});
  entered.keep();
  if (replacing) leave_locked(*replacing);
  ++next_layer_;
  count_evictions(evicted);
  spec.name = std::move(name);
  return id;
}

void Fabric::leave(placement::LayerId id) noexcept {
  const std::scoped_lock lock(mutex_);
  leave_locked(id);
}

void Fabric::leave_locked(placement::LayerId id) noexcept {
  bank_map_.leave(id);
  layers_.erase(id);
  if (!device_) return;
  try {
    images_.materialize_layer(id, *device_);
  } catch (const std::bad_alloc&) {  // the bytes are lost, the process is not
    images_.forget_layer(id);
  }
}

void Fabric::count_evictions(const std::vector<placement::LayerId>& evicted) {
  if (evicted.empty() || !device_->counting()) return;
  for (const placement::LayerId id : evicted) ++layers_.at(id).counters.evictions;
  fabric::Counters counts;
  counts.evictions = evicted.size();
  device_->account(counts, {});
}

void Fabric::credit(placement::LayerId id, const ForwardCounts& counts) {
  if (!device_->counting()) return;
  device_->account(counts.total, counts.tiles);
  layers_.at(id).counters += counts.total;
}

Status Fabric::load_layer(placement::LayerId id, const placement::Schedule& schedule,
                          const std::shared_ptr<const PackedWeights>& weights) {
  if (stepped()) {
    const fabric::Counters before = device_->counters();
    if (auto s = load_stepped(*device_, schedule, weights->rows().view()); !s) return s;
    layers_.at(id).counters += device_->counters() - before;
    return {};
  }
  if (device_->counting()) count_load(schedule, counts_);
  images_.add_load(id, schedule, weights, *device_);
  return {};
}

Status Fabric::forward(placement::LayerId id, const Forward& work, const Executor& executor,
                       std::span<std::int32_t> sums) {
  // Only what is counted has to know the schedule: the rest is quantized before anybody waits.
  const bool wants_counts = work.statistics != nullptr && counting() && !stepped();
  QuantizedActivations activations{};
  if (!wants_counts) activations = work.input.quantize({.planes = stepped()});
  auto lock = enter_device();
  if (!lock) return std::move(lock).error();
  const auto found = layers_.find(id);
  if (found == layers_.end()) return gone_error(spec_);
  LayerRecord& record = found->second;
  auto admission = bank_map_.admit(id, work.weights->serial());
  if (!admission) return std::move(admission).error();
  const auto& [placement, hit, evicted] = admission.value();
  count_evictions(evicted);
  record.sparsity = work.weights->sparsity();
  const placement::Schedule schedule(spec_.config.geometry, record.shape, placement);
  counts_.clear();
  counts_.total.residency_hits = hit ? 1 : 0;
  counts_.total.residency_misses = hit ? 0 : 1;
  Unless loaded([&]() noexcept { bank_map_.unload(id); });
  if (hit) loaded.keep();
  if (!placement.streamed && !hit) {
    if (auto s = load_layer(id, schedule, work.weights); !s) return s;
  }
  if (stepped()) {
    const fabric::Counters before = device_->counters();
    if (auto s = forward_stepped(*device_, schedule, work.weights->rows().view(),
                                 activations.planes, sums);
        !s) {
      return s;
    }
    record.counters += device_->counters() - before;
    credit(id, counts_);
    loaded.keep();
    return {};
  }
  const bool counted = wants_counts && device_->counting();
  if (wants_counts) {
    activations =
        work.input.quantize(counted ? request_for(schedule, *work.statistics, activation_counts_)
                                    : ActivationRequest{});
  }
  if (counted) {
    count_forward(schedule, *work.statistics, activations, activation_counts_, executor, counts_);
  }
  images_.add_forward(id, schedule, work.weights, activations, *device_);
  if (counted) credit(id, counts_);
  loaded.keep();
  return {};
}

Result<bool> Fabric::prefetch(placement::LayerId id,
                              const std::shared_ptr<const PackedWeights>& weights) {
  auto lock = enter_device();
  if (!lock) return std::move(lock).error();
  const auto found = layers_.find(id);
  if (found == layers_.end()) return gone_error(spec_);
  if (!bank_map_.can_reside(id)) return false;
  LayerRecord& record = found->second;
  auto admission = bank_map_.admit(id, weights->serial());
  if (!admission) return std::move(admission).error();
  const auto& [placement, hit, evicted] = admission.value();
  count_evictions(evicted);
  record.sparsity = weights->sparsity();
  if (hit) return true;
  counts_.clear();
  counts_.total.residency_misses = 1;
  const placement::Schedule schedule(spec_.config.geometry, record.shape, placement);
  Unless loaded([&]() noexcept { bank_map_.unload(id); });
  if (auto s = load_layer(id, schedule, weights); !s) return std::move(s).error();
  loaded.keep();
  credit(id, counts_);
  return true;
}

Status Fabric::set_pinned(placement::LayerId id, bool pinned) {
  auto lock = enter_device();
  if (!lock) return std::move(lock).error();
  if (!layers_.contains(id)) return gone_error(spec_);
  return bank_map_.set_pinned(id, pinned);
}

void Fabric::note_sparsity(placement::LayerId id, double sparsity) {
  const std::scoped_lock lock(mutex_);
  if (const auto found = layers_.find(id); found != layers_.end()) {
    found->second.sparsity = sparsity;
  }
}

LayerProfile Fabric::layer_profile(placement::LayerId id) {
  const std::scoped_lock lock(mutex_);
  const auto found = layers_.find(id);
  return found == layers_.end() ? LayerProfile{} : layer_profile_locked(id, found->second);
}

LayerProfile Fabric::layer_profile_locked(placement::LayerId id, const LayerRecord& record) const {
  const auto& tenant = bank_map_.tenant(id);
  LayerProfile profile{.name = record.name,
                       .counters = record.counters,
                       .sparsity = record.sparsity,
                       .tile_mask = tenant.tile_mask,
                       .resident = tenant.loaded};
  if (tenant.loaded || tenant.given_word) {
    profile.weight_address = spec_.config.geometry.bank_a_base(0) + 4ULL * tenant.word;
  }
  return profile;
}

}  // namespace tfmbs::runtime
