// The driver interface: what executes, or accounts for, a device's work. Implementations stand side
// by side: closed form (counters from a formula), stepped (every word and cycle), and lockstep of
// any two. A device (fabric.hpp) has one, and calls it under its lock unless a comment says
// otherwise.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tfmbs/device/activation_counter.hpp"
#include "tfmbs/device/closed_form.hpp"
#include "tfmbs/device/fabric_spec.hpp"
#include "tfmbs/device/lane_statistics.hpp"
#include "tfmbs/device/weight_trits.hpp"
#include "tfmbs/execution/executor.hpp"
#include "tfmbs/fabric/config.hpp"
#include "tfmbs/fabric/counters.hpp"
#include "tfmbs/fabric/task_descriptor.hpp"
#include "tfmbs/format/activations.hpp"
#include "tfmbs/format/error.hpp"
#include "tfmbs/placement/bank_map.hpp"
#include "tfmbs/placement/schedule.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::device {

// What one piece of work left, or would have left, in the banks (bank_images.hpp).
struct BankImage {
  std::uint64_t layer{0};
  std::uint64_t sequence{0};
  placement::Schedule schedule;
  std::shared_ptr<const WeightTrits> weights;
  std::uint64_t samples{0};               // 0: a load
  std::vector<std::uint64_t> tail_trits;  // the last samples, one trit each
  std::vector<std::int8_t> tail_values;   // or of int8 activations
};

// A layer's load, forward pass, or both, from admission to commit.
struct LayerWork {
  placement::LayerId layer;
  std::string_view name;
  placement::Schedule schedule;
  std::shared_ptr<const WeightTrits> weights;
  const LaneStatistics* statistics;  // null: not counted in closed form
  std::uint64_t samples;             // 0: a load alone
  bool load;                         // a resident layer that missed
  bool counted;                      // telemetry was on at the admission
  std::uint64_t sequence;            // of the admission: the order in which the device worked
  // Counted beside the work: hits, misses, evictions; then all that the work counts.
  ForwardCounts counts;
  // Set by run(): the activations, alive until the commit.
  QuantizedActivations activations{};
  // What commit() appends to the bank images, reserved by prepare(): new ones, or none where the
  // layer's last one is written over.
  std::list<BankImage> images{};
  // Weights that no record needs any more: they end with the work, without the lock.
  std::array<std::shared_ptr<const WeightTrits>, 2> discarded{};
};

// What a forward pass gives a driver.
struct LayerInput {
  QuantizedActivations activations{};
  const ActivationCounts* counts{nullptr};  // as needs() says
  // Exact products of the kernels, scale groups x samples x outputs (one group where the layer has
  // no group scales), for a driver that checks them; else empty.
  std::span<const std::int32_t> products{};
  // Receives as many products of a driver that computes them; else empty.
  std::span<std::int32_t> sums{};
};

// Where a forward pass's products come from.
enum class Products : std::uint8_t {
  kKernels,  // the driver sees none
  kDriver,   // the driver's own are the result
  kBoth,     // the kernels' are the result, and the driver compares its own with them
};

class Driver {
 public:
  Driver() = default;
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;
  virtual ~Driver() = default;

  [[nodiscard]] virtual std::string_view name() const noexcept = 0;
  // Whether several pieces of work may be under way at once, with run() outside the device's lock.
  // Else the lock is held from admission to commit.
  [[nodiscard]] virtual bool concurrent() const noexcept = 0;
  [[nodiscard]] virtual Products products() const noexcept = 0;

  // --- a layer's work: prepare, needs, run, then commit or abort -------------------------------
  // Reserves what commit() takes. Throws std::bad_alloc; nothing has changed then.
  virtual void prepare(LayerWork& work) = 0;
  // Without the lock.
  [[nodiscard]] virtual ActivationNeeds needs(const LayerWork& work) const noexcept = 0;
  // Everything that may fail; without the lock where concurrent(). Throws std::bad_alloc. After an
  // error or an exception, abort() follows, or commit() of the load alone: samples are 0 then, and
  // counts hold nothing of the work.
  virtual Status run(LayerWork& work, const LayerInput& input,
                     const execution::Executor& executor) = 0;
  // Gives what the work counted, for the layer's own account.
  virtual fabric::Counters commit(LayerWork& work) noexcept = 0;
  // The state is as it was before prepare().
  virtual void abort(LayerWork& work) noexcept = 0;
  // No record of the layer is needed for its own sake. Only while no work is under way.
  virtual void leave(placement::LayerId layer) noexcept = 0;

  // --- the address map and the engine: as fabric::Device's, while no work is under way ----------
  virtual Status load(std::uint64_t address, std::span<const std::uint32_t> words) = 0;
  virtual Status read(std::uint64_t address, std::span<std::uint32_t> words) = 0;
  virtual Status execute(const fabric::TaskDescriptor& task) = 0;
  // Result registers of a tile. Precondition: tile < tiles.
  virtual Result<std::vector<std::int32_t>> results(std::uint32_t tile) = 0;

  [[nodiscard]] virtual const fabric::Counters& counters() const noexcept = 0;
  [[nodiscard]] virtual std::span<const fabric::TileCounters> tile_counters() const noexcept = 0;
  // Adds to the device's counters what no work of its own counted, unless counting is off.
  virtual void account(const fabric::Counters& counts) noexcept = 0;
  virtual void reset_counters() noexcept = 0;
  virtual void set_counting(bool on) noexcept = 0;
  [[nodiscard]] virtual bool counting() const noexcept = 0;

  // --- for lockstep: the whole state, and back to it ---------------------------------------------
  class State {
   public:
    State() = default;
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    virtual ~State() = default;
  };
  [[nodiscard]] virtual std::unique_ptr<State> save() = 0;
  virtual void restore(std::unique_ptr<State> state) noexcept = 0;
};

// Throw std::bad_alloc where the banks find no memory.
[[nodiscard]] std::unique_ptr<Driver> make_closed_form_driver(const fabric::FabricConfig& config);
[[nodiscard]] std::unique_ptr<Driver> make_stepped_driver(const fabric::FabricConfig& config);
// Runs both and compares results, counters and memory after each piece of work. At the first
// difference it stops: that call and every later one gives a kMismatch error that names both
// drivers, the layer, the stage and the address or counter.
[[nodiscard]] std::unique_ptr<Driver> make_lockstep_driver(const fabric::FabricConfig& config,
                                                           std::unique_ptr<Driver> first,
                                                           std::unique_ptr<Driver> second);
[[nodiscard]] std::unique_ptr<Driver> make_driver(Engine engine,
                                                  const fabric::FabricConfig& config);

}  // namespace tfmbs::device

#pragma GCC visibility pop
