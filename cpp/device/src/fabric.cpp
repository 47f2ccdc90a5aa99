#include "tfmbs/device/fabric.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <thread>
#include <type_traits>
#include <utility>

#include "fabric_registry.hpp"
#include "tfmbs/format/limits.hpp"

namespace tfmbs::device {
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

// A value that is built where it is converted: an optional's, with no move of what a function
// makes.
template <typename Make>
class InPlace {
 public:
  explicit InPlace(const Make& make) noexcept : make_(make) {}
  // NOLINTNEXTLINE(google-explicit-constructor): to be converted is what it is for
  operator std::invoke_result_t<const Make&>() const { return make_(); }

 private:
  const Make& make_;
};

}  // namespace

Fabric::Fabric(FabricSpec spec) : Fabric(spec, make_driver(spec.engine, spec.config)) {}

Fabric::Fabric(FabricSpec spec, std::unique_ptr<Driver> driver)
    : spec_(std::move(spec)),
      products_(driver->products()),
      driver_(std::move(driver)),
      bank_map_(spec_.config.geometry),
      queue_(std::make_unique<fabric::TaskQueue>([this](const fabric::TaskDescriptor& task) {
        std::unique_lock lock(mutex_);
        await_quiet(lock);
        if (!driver_) return Status(closed_error(spec_));
        return driver_->execute(task);
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

std::shared_ptr<Fabric> Fabric::open(std::unique_ptr<Driver> driver,
                                     const fabric::FabricConfig& config) {
  auto& registry = FabricRegistry::instance();
  return registry.add(std::shared_ptr<Fabric>(
      new Fabric({registry.unique_name(), Engine::kLockstep, config}, std::move(driver))));
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
  std::unique_lock lock(mutex_);
  await_quiet(lock);
  closed_ = true;
  driver_.reset();
  return {};
}

Result<std::unique_lock<std::mutex>> Fabric::enter_device() {
  queue_->drain();
  std::unique_lock lock(mutex_);
  if (!driver_) return closed_error(spec_);
  return lock;
}

Result<std::unique_lock<std::mutex>> Fabric::enter_for_work() {
  queue_->drain();
  std::unique_lock lock(mutex_);
  turn_.wait(lock, [this] { return waiting_ == 0; });
  if (!driver_) return closed_error(spec_);
  return lock;
}

Result<std::unique_lock<std::mutex>> Fabric::enter_quiet() {
  queue_->drain();
  std::unique_lock lock(mutex_);
  await_quiet(lock);
  if (!driver_) return closed_error(spec_);
  return lock;
}

void Fabric::await_quiet(std::unique_lock<std::mutex>& lock) {
  if (under_way_ == 0) return;
  ++waiting_;
  quiet_.wait(lock, [this] { return under_way_ == 0; });
  if (--waiting_ == 0) turn_.notify_all();
}

Status Fabric::load(std::uint64_t address, std::span<const std::uint32_t> words) {
  auto lock = enter_quiet();
  if (!lock) return std::move(lock).error();
  std::vector<placement::LayerId> overwritten;
  const auto where = spec_.config.geometry.locate(address, 4 * words.size());
  const bool in_bank_a = where && where.value().region == Region::kBankA;
  if (in_bank_a) {
    overwritten = bank_map_.loaded_in(std::uint64_t{1} << where.value().tile, where.value().word,
                                      static_cast<std::uint32_t>(words.size()));
  }
  if (auto s = driver_->load(address, words); !s) return s;
  if (in_bank_a) bank_map_.unload(overwritten);
  count_evictions(overwritten);
  return {};
}

Status Fabric::read(std::uint64_t address, std::span<std::uint32_t> words) {
  auto lock = enter_quiet();
  if (!lock) return std::move(lock).error();
  return driver_->read(address, words);
}

Status Fabric::run(const fabric::TaskDescriptor& task) { return run_batch({&task, 1}); }

Status Fabric::run_batch(std::span<const fabric::TaskDescriptor> tasks) {
  auto lock = enter_quiet();
  if (!lock) return std::move(lock).error();
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    if (auto s = fabric::validate(tasks[i], spec_.config.geometry); !s) {
      if (tasks.size() == 1) return s;
      Error error = std::move(s).error();
      error.message = "task " + std::to_string(i) + " of the batch: " + error.message;
      return error;
    }
  }
  for (const auto& task : tasks) {
    if (auto s = driver_->execute(task); !s) return s;
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
  auto lock = enter_quiet();
  if (!lock) return std::move(lock).error();
  const std::uint32_t tiles = spec_.config.geometry.tiles();
  if (tile < -1 || tile >= std::int64_t{tiles}) return tile_error(tile, tiles, ", or -1 for all");
  std::vector<std::int32_t> values;
  for (std::uint32_t t = 0; t < tiles; ++t) {
    if (tile != -1 && tile != std::int64_t{t}) continue;
    auto lanes = driver_->results(t);
    if (!lanes) return std::move(lanes).error();
    values.insert(values.end(), lanes.value().begin(), lanes.value().end());
  }
  return values;
}

Result<Profile> Fabric::profile() {
  auto lock = enter_device();
  if (!lock) return std::move(lock).error();
  Profile profile;
  profile.total = driver_->counters();
  const auto tiles = driver_->tile_counters();
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
  return driver_->tile_counters()[static_cast<std::size_t>(tile)];
}

Status Fabric::reset_counters() {
  auto lock = enter_device();
  if (!lock) return std::move(lock).error();
  driver_->reset_counters();
  for (auto& [id, record] : layers_) record.counters = {};
  return {};
}

void Fabric::set_telemetry(bool on) {
  queue_->drain();
  const std::scoped_lock lock(mutex_);
  if (!driver_) return;
  driver_->set_counting(on);
  counting_ = on;
}

bool Fabric::telemetry() const {
  const std::scoped_lock lock(mutex_);
  return driver_ && driver_->counting();
}

// A hint is a lower bound of the suffixes that are free.
Fabric::Name Fabric::free_name(const std::string& wanted,
                               std::optional<placement::LayerId> replacing) {
  const auto is_free = [&](const std::string& name) {
    const auto found = names_.find(name);
    return found == names_.end() || found->second == replacing;
  };
  if (is_free(wanted)) return {wanted, 0};
  std::uint64_t& suffix = next_suffix_.try_emplace(wanted, 1).first->second;
  for (;; ++suffix) {
    std::string name = wanted + "-" + std::to_string(suffix);
    if (is_free(name)) return {std::move(name), suffix};
  }
}

Result<placement::LayerId> Fabric::enter(LayerDescription& layer,
                                         std::optional<placement::LayerId> replacing) {
  auto lock = enter_device();
  if (!lock) return std::move(lock).error();
  const Geometry& geometry = spec_.config.geometry;
  if ((layer.tile_mask & ~geometry.all_tiles()) != 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "layer '" + layer.name + "': tile_mask " + std::to_string(layer.tile_mask) +
                     " names tiles beyond the " + std::to_string(geometry.tiles()) +
                     " of the fabric; allowed are 1 to " + std::to_string(geometry.all_tiles())};
  }
  if (layer.depth > kMaxDepth) {
    return Error{ErrorCode::kInvalidArgument, "layer '" + layer.name + "': in_features " +
                                                  std::to_string(layer.depth) + " exceeds " +
                                                  std::to_string(kMaxDepth)};
  }
  const std::uint64_t mask = layer.tile_mask != 0
                                 ? layer.tile_mask
                                 : placement::default_tile_mask(geometry, layer.outputs);
  auto [name, suffix] = free_name(layer.name, replacing);
  const placement::LayerId id = next_layer_;
  // Room for all that may leave while work is under way.
  if (departed_.capacity() <= departed_.size() + layers_.size()) {
    departed_.reserve(2 * (departed_.size() + layers_.size()) + 8);
  }
  layers_.emplace(id, LayerRecord{.name = name,
                                  .wanted_name = suffix == 0 ? std::string{} : layer.name,
                                  .suffix = suffix,
                                  .shape = {.outputs = layer.outputs,
                                            .depth = layer.depth,
                                            .planes = layer.planes,
                                            .group_depth = layer.group_depth}});
  Unless recorded([&]() noexcept { layers_.erase(id); });
  const auto entry = names_.try_emplace(name, id);  // or the name is the replaced layer's
  Unless named([&]() noexcept {
    if (entry.second) names_.erase(entry.first);
  });
  // Last of what may fail, for layers make way.
  std::vector<placement::LayerId> evicted;
  if (auto s = bank_map_.enter(id, name, layer.outputs, layer.depth, mask, layer.weight_address,
                               evicted, replacing);
      !s) {
    return std::move(s).error();
  }
  named.keep();
  recorded.keep();
  entry.first->second = id;
  if (replacing) leave_locked(*replacing);
  ++next_layer_;
  count_evictions(evicted);
  layer.name = std::move(name);
  return id;
}

void Fabric::leave(placement::LayerId id) noexcept {
  const std::scoped_lock lock(mutex_);
  leave_locked(id);
}

void Fabric::leave_locked(placement::LayerId id) noexcept {
  const auto record = layers_.find(id);
  if (record == layers_.end()) return;
  if (const auto name = names_.find(record->second.name);
      name != names_.end() && name->second == id) {
    const auto hint = next_suffix_.find(record->second.wanted_name);
    if (record->second.suffix != 0 && hint != next_suffix_.end()) {
      hint->second = std::min(hint->second, record->second.suffix);
      if (hint->second == 1) next_suffix_.erase(hint);
    }
    names_.erase(name);
  }
  bank_map_.leave(id);
  layers_.erase(record);
  if (!driver_) return;
  if (under_way_ == 0) {
    driver_->leave(id);
  } else {
    departed_.push_back(id);  // enter() reserved the room
  }
}

void Fabric::count_evictions(const std::vector<placement::LayerId>& evicted) noexcept {
  if (evicted.empty() || !driver_->counting()) return;
  for (const placement::LayerId id : evicted) {
    if (const auto found = layers_.find(id); found != layers_.end()) {
      ++found->second.counters.evictions;
    }
  }
  fabric::Counters counts;
  counts.evictions = evicted.size();
  driver_->account(counts);
}

Status Fabric::admit(placement::LayerId id, const LayerWeights& weights, std::uint64_t samples,
                     execution::Scratch& scratch, Ticket& ticket) {
  auto lock = enter_for_work();
  if (!lock) return std::move(lock).error();
  return admit_locked(std::move(lock).value(), id, weights, samples, scratch, ticket);
}

Status Fabric::admit_locked(std::unique_lock<std::mutex> lock, placement::LayerId id,
                            const LayerWeights& weights, std::uint64_t samples,
                            execution::Scratch& scratch, Ticket& ticket) {
  const auto found = layers_.find(id);
  if (found == layers_.end()) return gone_error(spec_);
  if (auto s = bank_map_.admit(id, weights.trits->serial(), ticket.admission_); !s) return s;
  const bool hit = ticket.admission_.hit;
  Unless admitted([&]() noexcept { bank_map_.undo(id, ticket.admission_, [](auto) {}); });
  const auto& place = ticket.admission_.placement;
  const auto described = [&] {
    return LayerWork{
        .layer = id,
        .name = found->second.name,
        .schedule = placement::Schedule(spec_.config.geometry, found->second.shape, place),
        .weights = weights.trits,
        .statistics = weights.statistics,
        .samples = samples,
        .load = !place.streamed && !hit,
        .counted = driver_->counting() && (samples == 0 || products_ == Products::kDriver ||
                                           weights.statistics != nullptr),
        .sequence = next_sequence_,
        .counts = {{}, scratch.take<fabric::TileCounters>(spec_.config.geometry.tiles())}};
  };
  LayerWork& work = ticket.work_.emplace(InPlace(described));
  std::fill(work.counts.tiles.begin(), work.counts.tiles.end(), fabric::TileCounters{});
  work.counts.total.residency_hits = hit && samples != 0 ? 1 : 0;
  work.counts.total.residency_misses = hit ? 0 : 1;
  driver_->prepare(work);
  admitted.keep();
  ++next_sequence_;
  ticket.fabric_ = this;
  ticket.sparsity_ = work.weights->sparsity();
  if (driver_->concurrent()) {
    ++under_way_;
  } else {
    ticket.lock_ = std::move(lock);
  }
  return {};
}

Fabric::Ticket::~Ticket() {
  if (fabric_ != nullptr) fabric_->abort(*this);
}

Status Fabric::Ticket::run(const LayerInput& input, const execution::Executor& executor) {
  return fabric_->driver_->run(*work_, input, executor);
}

void Fabric::Ticket::commit() noexcept { std::exchange(fabric_, nullptr)->commit(*this); }

void Fabric::commit(Ticket& ticket) noexcept {
  if (!ticket.lock_.owns_lock()) ticket.lock_ = std::unique_lock(mutex_);
  commit_locked(ticket);
}

void Fabric::commit_locked(Ticket& ticket) noexcept {
  LayerWork& work = *ticket.work_;
  const fabric::Counters counted = driver_->commit(work);
  count_evictions(ticket.admission_.evicted);
  if (const auto found = layers_.find(work.layer); found != layers_.end()) {
    found->second.counters += counted;
    found->second.sparsity = ticket.sparsity_;
  }
  end_work();
  ticket.lock_.unlock();
}

void Fabric::abort(Ticket& ticket) noexcept {
  if (!ticket.lock_.owns_lock()) ticket.lock_ = std::unique_lock(mutex_);
  LayerWork& work = *ticket.work_;
  if (work.load && bank_map_.admitted_since(work.layer, ticket.admission_)) {
    // Later work found the layer loaded: the load stays, as a prefetch.
    work.samples = 0;
    work.counts.total = {};
    work.counts.total.residency_misses = 1;
    std::fill(work.counts.tiles.begin(), work.counts.tiles.end(), fabric::TileCounters{});
    commit_locked(ticket);
    return;
  }
  driver_->abort(work);
  bank_map_.undo(work.layer, ticket.admission_, [this](placement::LayerId id) {
    const auto found = layers_.find(id);
    if (found == layers_.end() || !driver_->counting()) return;
    ++found->second.counters.evictions;
    fabric::Counters counts;
    counts.evictions = 1;
    driver_->account(counts);
  });
  end_work();
  ticket.lock_.unlock();
}

void Fabric::end_work() noexcept {
  if (!driver_->concurrent() || --under_way_ != 0) return;
  for (const placement::LayerId id : departed_) driver_->leave(id);
  departed_.clear();
  quiet_.notify_all();
}

Result<bool> Fabric::prefetch(placement::LayerId id, const LayerWeights& weights) {
  auto lock = enter_for_work();
  if (!lock) return std::move(lock).error();
  if (!layers_.contains(id)) return gone_error(spec_);
  if (!bank_map_.can_reside(id)) return false;
  execution::Scratch scratch;
  Ticket ticket;
  if (auto s = admit_locked(std::move(lock).value(), id, weights, 0, scratch, ticket); !s) {
    return std::move(s).error();
  }
  if (auto s = ticket.run({}, execution::SerialExecutor{}); !s) return std::move(s).error();
  ticket.commit();
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

void Fabric::before_fork() {
  queue_->before_fork();
  mutex_.lock();
  ++waiting_;
  while (under_way_ != 0) {  // in other threads, which need nothing that this one holds
    mutex_.unlock();
    std::this_thread::yield();
    mutex_.lock();
  }
}

void Fabric::after_fork_in_parent() {
  if (--waiting_ == 0) turn_.notify_all();
  mutex_.unlock();
  queue_->after_fork_in_parent();
}

void Fabric::after_fork_in_child() {
  // Threads that waited are counted in it, and do not exist here.
  std::construct_at(&quiet_);
  std::construct_at(&turn_);
  waiting_ = 0;
  mutex_.unlock();
  queue_->after_fork_in_child();
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

}  // namespace tfmbs::device
