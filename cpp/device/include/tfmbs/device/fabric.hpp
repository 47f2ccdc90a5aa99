// A device as layers and users share it: the machine, who is resident, telemetry by layer, and the
// lock that makes handles safe from several threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "tfmbs/device/driver.hpp"
#include "tfmbs/device/fabric_spec.hpp"
#include "tfmbs/device/lane_statistics.hpp"
#include "tfmbs/device/weight_trits.hpp"
#include "tfmbs/execution/executor.hpp"
#include "tfmbs/execution/workspace.hpp"
#include "tfmbs/fabric/counters.hpp"
#include "tfmbs/fabric/task_queue.hpp"
#include "tfmbs/format/error.hpp"
#include "tfmbs/placement/bank_map.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::device {

struct LayerProfile {
  std::string name;
  fabric::Counters counters{};
  std::optional<double>
      sparsity{};  // of the weights that the device was last told of; none: not yet
  std::uint64_t tile_mask{0};
  std::optional<std::uint64_t> weight_address{};  // bytes, in tile 0's Bank A; none: not resident
  bool resident{false};
};

// What a device is told of a layer that arrives.
struct LayerDescription {
  std::string name;
  std::uint64_t outputs{0};
  std::uint64_t depth{0};
  std::uint32_t planes{1};                        // trit planes of its activations
  std::optional<std::uint64_t> weight_address{};  // bytes, in tile 0's Bank A; none: automatic
  std::uint64_t tile_mask{0};                     // 0: the lowest min(tiles, groups) bits
  std::uint32_t group_depth{0};                   // depths that share a scale; 0: all do
};

// The weights of one forward pass or load.
struct LayerWeights {
  std::shared_ptr<const WeightTrits> trits;
  // Null where the pass is not to be counted in closed form; must outlive the work.
  const LaneStatistics* statistics{nullptr};
};

struct Profile {
  fabric::Counters total{};
  std::vector<fabric::TileCounters> tiles{};
  std::vector<LayerProfile> layers{};  // in the order in which they arrived
};

class Fabric {
 public:
  // The process's default device: default configuration, closed-form engine, never closed.
  static const std::shared_ptr<Fabric>& default_fabric();
  // A device of its own, under a name that no other device has.
  static std::shared_ptr<Fabric> open(Engine engine, const fabric::FabricConfig& config);
  // The same with a driver of the caller's.
  static std::shared_ptr<Fabric> open(std::unique_ptr<Driver> driver,
                                      const fabric::FabricConfig& config);
  // The living device of that name, or a new one built from the specification.
  static std::shared_ptr<Fabric> find_or_open(const FabricSpec& spec);
  ~Fabric();
  Fabric(const Fabric&) = delete;
  Fabric& operator=(const Fabric&) = delete;

  [[nodiscard]] const FabricSpec& spec() const noexcept { return spec_; }
  [[nodiscard]] const fabric::FabricConfig& config() const noexcept { return spec_.config; }
  [[nodiscard]] bool is_default() const noexcept { return spec_.name == kDefaultFabricName; }

  // Errors: kClosed for the default device. Closing twice is fine. A call that gives a status or
  // a result gives kClosed on a closed device.
  Status close();
  // Does not wait for what the device is doing.
  [[nodiscard]] bool closed() const noexcept { return closed_; }

  // --- low level: the address map and the engine ---------------------------------------------
  // What was submitted before runs first. Errors as fabric::Device's.
  Status load(std::uint64_t address, std::span<const std::uint32_t> words);
  Status read(std::uint64_t address, std::span<std::uint32_t> words);
  Status run(const fabric::TaskDescriptor& task);
  // All are validated before the first runs.
  Status run_batch(std::span<const fabric::TaskDescriptor> tasks);
  Result<std::shared_ptr<fabric::TaskTicket>> submit(fabric::TaskDescriptor task);
  Status wait(const std::shared_ptr<fabric::TaskTicket>& ticket);
  [[nodiscard]] bool is_done(const std::shared_ptr<fabric::TaskTicket>& ticket) const;
  // Result registers of one tile, or of all (tile -1), lanes after lanes. Errors: kAddress.
  Result<std::vector<std::int32_t>> results(std::int64_t tile);

  Result<Profile> profile();
  Result<fabric::TileCounters> profile_tile(std::int64_t tile);
  Status reset_counters();
  void set_telemetry(bool on);
  [[nodiscard]] bool telemetry() const;

  // --- layers ---------------------------------------------------------------------------------
  // A layer arrives, under a name of its own: a taken one gets a suffix, and `layer` is changed to
  // what was agreed. Errors: kInvalidArgument (tile mask), kPlacement, kClosed. `replacing`: a
  // layer that leaves if this one enters, so its name and place are free for it.
  Result<placement::LayerId> enter(LayerDescription& layer,
                                   std::optional<placement::LayerId> replacing = std::nullopt);
  void leave(placement::LayerId id) noexcept;

  // A layer's work on the device, from its admission to its commit: the caller's memory, filled by
  // admit(). One that ends without commit() has not happened: counters, residency and memory are as
  // before. Only a load that later work of the same layer found stays, as a prefetch.
  class Ticket {
   public:
    Ticket() = default;
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;
    ~Ticket();

    [[nodiscard]] ActivationNeeds needs() const noexcept { return fabric_->driver_->needs(*work_); }
    // All that may fail. Does not take the device's lock. Errors: the driver's.
    Status run(const LayerInput& input, const execution::Executor& executor);
    void commit() noexcept;

   private:
    friend class Fabric;

    Fabric* fabric_{nullptr};  // null: not admitted, or committed
    std::optional<LayerWork> work_;
    placement::BankMap::Admission admission_;
    std::unique_lock<std::mutex> lock_;  // held where the driver is not concurrent
    double sparsity_{0.0};
  };

  // Whether telemetry is on; waits for nothing.
  [[nodiscard]] bool counting() const noexcept { return counting_; }
  [[nodiscard]] Products products() const noexcept { return products_; }
  // Whether lane statistics are of use.
  [[nodiscard]] bool counts_in_closed_form() const noexcept {
    return spec_.engine != Engine::kStepped;
  }
  // Admits a forward pass: finds the layer in Bank A, makes room for it, or a window to stream
  // through. `ticket` is new; memory of it lies in `scratch`. Errors: kClosed, kGone, kPlacement.
  // Throws std::bad_alloc. Nothing has changed then.
  Status admit(placement::LayerId id, const LayerWeights& weights, std::uint64_t samples,
               execution::Scratch& scratch, Ticket& ticket);
  // Loads without a forward pass; false, with nothing changed, where the layer has to stream.
  Result<bool> prefetch(placement::LayerId id, const LayerWeights& weights);
  Status set_pinned(placement::LayerId id, bool pinned);
  // What the weights' sparsity is, where they were quantized without a forward pass.
  void note_sparsity(placement::LayerId id, double sparsity);
  [[nodiscard]] LayerProfile layer_profile(placement::LayerId id);

  // Around fork(), on the thread that forks: waits for the work under way, and holds the lock.
  void before_fork();
  void after_fork_in_parent();
  void after_fork_in_child();

 private:
  struct LayerRecord {
    std::string name;
    std::string wanted_name;  // before the suffix, where it has one
    std::uint64_t suffix{0};
    placement::LayerShape shape{};
    fabric::Counters counters{};
    std::optional<double> sparsity{};
  };

  explicit Fabric(FabricSpec spec);
  Fabric(FabricSpec spec, std::unique_ptr<Driver> driver);
  // Waits for submitted tasks, takes the lock, and gives kClosed where there is no device any more.
  Result<std::unique_lock<std::mutex>> enter_device();
  // The same once no call waits for the work under way to end: for new work, which would prolong
  // it.
  Result<std::unique_lock<std::mutex>> enter_for_work();
  // The same once no work is under way: for what sees or changes the memory.
  Result<std::unique_lock<std::mutex>> enter_quiet();
  void await_quiet(std::unique_lock<std::mutex>& lock);
  void leave_locked(placement::LayerId id) noexcept;
  void count_evictions(const std::vector<placement::LayerId>& evicted) noexcept;
  Status admit_locked(std::unique_lock<std::mutex> lock, placement::LayerId id,
                      const LayerWeights& weights, std::uint64_t samples,
                      execution::Scratch& scratch, Ticket& ticket);
  void commit(Ticket& ticket) noexcept;
  void commit_locked(Ticket& ticket) noexcept;
  void abort(Ticket& ticket) noexcept;
  void end_work() noexcept;
  [[nodiscard]] LayerProfile layer_profile_locked(placement::LayerId id,
                                                  const LayerRecord& record) const;
  // The name, or with the smallest suffix that makes it one that no other layer has.
  struct Name {
    std::string text;
    std::uint64_t suffix;  // 0: none
  };
  [[nodiscard]] Name free_name(const std::string& wanted,
                               std::optional<placement::LayerId> replacing);

  FabricSpec spec_;
  mutable std::mutex mutex_;
  std::condition_variable quiet_;
  std::atomic<bool> closed_{false};
  std::atomic<bool> counting_{true};
  Products products_;
  std::unique_ptr<Driver> driver_;  // null once closed
  placement::BankMap bank_map_;
  std::unordered_map<placement::LayerId, LayerRecord> layers_;
  std::unordered_map<std::string, placement::LayerId> names_;
  std::unordered_map<std::string, std::uint64_t> next_suffix_;  // by the name that was wanted
  placement::LayerId next_layer_{1};
  std::uint64_t next_sequence_{1};
  std::size_t under_way_{0};                  // tickets of a concurrent driver
  std::size_t waiting_{0};                    // calls that wait until there are none
  std::condition_variable turn_;              // new work's: none waits
  std::vector<placement::LayerId> departed_;  // left while work was under way
  std::unique_ptr<fabric::TaskQueue> queue_;
};

}  // namespace tfmbs::device

#pragma GCC visibility pop
