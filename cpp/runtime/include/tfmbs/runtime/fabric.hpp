// A device as layers and users share it: the machine, who is resident, telemetry by layer, and the
// lock that makes handles safe from several threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "tfmbs/fabric/counters.hpp"
#include "tfmbs/fabric/device.hpp"
#include "tfmbs/fabric/task_queue.hpp"
#include "tfmbs/format/error.hpp"
#include "tfmbs/placement/bank_map.hpp"
#include "tfmbs/runtime/bank_images.hpp"
#include "tfmbs/runtime/closed_form.hpp"
#include "tfmbs/runtime/executor.hpp"
#include "tfmbs/runtime/lane_statistics.hpp"
#include "tfmbs/runtime/layer_spec.hpp"
#include "tfmbs/runtime/packed_weights.hpp"
#include "tfmbs/runtime/quantized_activations.hpp"

namespace tfmbs::runtime {

struct LayerProfile {
  std::string name;
  fabric::Counters counters{};
  std::optional<double>
      sparsity{};  // of the weights that the device was last told of; none: not yet
  std::uint64_t tile_mask{0};
  std::optional<std::uint64_t> weight_address{};  // bytes, in tile 0's Bank A; none: not resident
  bool resident{false};
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
  // A layer arrives, under a name of its own: a taken one gets a suffix. spec is changed to what
  // was agreed (name, tile mask). Errors: kInvalidArgument (tile mask), kPlacement, kClosed.
  // `replacing`: a layer that leaves if this one enters, so its name and place are free for it.
  Result<placement::LayerId> enter(LayerSpec& spec,
                                   std::optional<placement::LayerId> replacing = std::nullopt);
  void leave(placement::LayerId id) noexcept;

  struct Forward {
    std::shared_ptr<const PackedWeights> weights;
    // Null where counting() was false or the engine is stepped; the forward is then not counted in
    // closed form.
    const LaneStatistics* statistics{nullptr};
    ActivationSource& input;
  };
  // Whether telemetry is on; waits for nobody.
  [[nodiscard]] bool counting() const noexcept { return counting_; }
  [[nodiscard]] bool stepped() const noexcept { return spec_.engine == Engine::kStepped; }
  // Brings the layer in and counts its forward. With the stepped engine `sums` receives the
  // products; otherwise it is not touched. Nothing has changed after an error; where memory runs
  // out (std::bad_alloc) the layer is not resident, unless it was before, and others may have made
  // room for it. A forward that is counted is quantized under the device's lock.
  Status forward(placement::LayerId id, const Forward& work, const Executor& executor,
                 std::span<std::int32_t> sums);
  // Loads without a forward; false, with nothing changed, where the layer has to stream.
  Result<bool> prefetch(placement::LayerId id, const std::shared_ptr<const PackedWeights>& weights);
  Status set_pinned(placement::LayerId id, bool pinned);
  // What the weights' sparsity is, where somebody quantized them without a forward.
  void note_sparsity(placement::LayerId id, double sparsity);
  [[nodiscard]] LayerProfile layer_profile(placement::LayerId id);

 private:
  struct LayerRecord {
    std::string name;
    placement::LayerShape shape{};
    fabric::Counters counters{};
    std::optional<double> sparsity{};
  };

  explicit Fabric(FabricSpec spec);
  // Waits for submitted tasks, takes the lock, and gives kClosed where there is no device any more.
  Result<std::unique_lock<std::mutex>> enter_device();
  void materialize();
  void leave_locked(placement::LayerId id) noexcept;
  void count_evictions(const std::vector<placement::LayerId>& evicted);
  void credit(placement::LayerId id, const ForwardCounts& counts);
  Status load_layer(placement::LayerId id, const placement::Schedule& schedule,
                    const std::shared_ptr<const PackedWeights>& weights);
  [[nodiscard]] LayerProfile layer_profile_locked(placement::LayerId id,
                                                  const LayerRecord& record) const;

  friend void fork_prepare();
  friend void fork_parent();
  friend void fork_child();

  FabricSpec spec_;
  mutable std::mutex mutex_;
  std::atomic<bool> closed_{false};
  std::atomic<bool> counting_{true};
  std::unique_ptr<fabric::Device> device_;  // null once closed
  placement::BankMap bank_map_;
  BankImages images_;
  std::unordered_map<placement::LayerId, LayerRecord> layers_;
  placement::LayerId next_layer_{1};
  // Of the forward under way; kept so that one allocates nothing.
  ForwardCounts counts_;
  ActivationCounts activation_counts_;
  std::unique_ptr<fabric::TaskQueue> queue_;
};

}  // namespace tfmbs::runtime
