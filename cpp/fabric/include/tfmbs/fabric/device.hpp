// The stepped device: it holds the banks, moves every word, and steps the engine and the DMA cycle
// by cycle. It is the reference that the closed form must equal. Not thread-safe: device::Fabric
// holds the lock.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tfmbs/fabric/config.hpp"
#include "tfmbs/fabric/counters.hpp"
#include "tfmbs/fabric/task_descriptor.hpp"
#include "tfmbs/fabric/timing.hpp"
#include "tfmbs/format/error.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::fabric {

// One DMA transfer. Words come from `source` or go to `destination`, whichever the kind uses.
struct Transfer {
  enum class Kind : std::uint8_t {
    kWeights,      // source -> Bank A of the one tile in tile_mask
    kActivations,  // source -> Bank B of every tile in tile_mask; a broadcast
    kPartialsIn,   // source -> result registers of the one tile in tile_mask
    kResultsOut,   // result registers of the one tile in tile_mask -> destination
  };
  Kind kind{Kind::kWeights};
  std::uint64_t tile_mask{1};
  std::uint32_t word{0};  // first word in the region
  std::span<const std::uint32_t> source{};
  std::span<std::uint32_t> destination{};
};

// Passes on disjoint tiles, and the transfers beside them, in order. A result register is read by
// kResultsOut and written by kPartialsIn before the passes commit.
struct Stage {
  std::span<const TaskDescriptor> passes{};
  std::span<const Transfer> transfers{};
};

class Device {
 public:
  // Throws std::bad_alloc where the banks find no memory.
  explicit Device(const FabricConfig& config);
  ~Device();
  Device(const Device&);  // a copy of the whole state; throws std::bad_alloc
  Device(Device&&) noexcept;
  Device& operator=(const Device&) = delete;
  Device& operator=(Device&&) noexcept;

  [[nodiscard]] const FabricConfig& config() const noexcept { return config_; }
  [[nodiscard]] const Geometry& geometry() const noexcept { return config_.geometry; }

  // Runs one stage. Errors (kDescriptor, kAddress, kEncoding) are found before anything happens;
  // the offset of an encoding fault counts from the start of its transfer's source. A transfer must
  // not write words that a pass of the same stage reads (kDescriptor).
  Status execute(const Stage& stage);

  // Host access by address. load is a stage of its own: one kWeights, kActivations (broadcast
  // window: all tiles; Bank B of one tile: counts as mem_reads, not as a broadcast) or kPartialsIn
  // transfer. Errors: kAddress, kEncoding (banks; the offset counts from the start of `words`), and
  // nothing is written.
  Status load(std::uint64_t address, std::span<const std::uint32_t> words);
  // Costs and counts nothing. Errors: kAddress (the broadcast window cannot be read).
  Status read(std::uint64_t address, std::span<std::uint32_t> words) const;
  // One pass, nothing beside it.
  Status run(const TaskDescriptor& task);

  // Result registers of a tile, geometry().lanes() of them. Precondition: tile < tiles.
  [[nodiscard]] std::span<const std::int32_t> results(std::uint32_t tile) const noexcept;
  // One flag a lane, sticky until reset_counters().
  [[nodiscard]] std::span<const std::uint8_t> overflow(std::uint32_t tile) const noexcept;

  // --- for the closed form: state and counts that no stage of this device produced -------------
  // Writes bank words or results as a transfer would, without time and without counting.
  void place(const Transfer& transfer) noexcept;
  void place_results(std::uint32_t tile, std::uint32_t first_lane,
                     std::span<const std::int32_t> values) noexcept;
  void account(const Counters& counts, std::span<const TileCounters> tiles) noexcept;

  [[nodiscard]] const Counters& counters() const noexcept { return counters_; }
  [[nodiscard]] std::span<const TileCounters> tile_counters() const noexcept {
    return tile_counters_;
  }
  void reset_counters() noexcept;
  // Counting off: state and results as ever, counters stand still. On by default.
  void set_counting(bool on) noexcept { counting_ = on; }
  [[nodiscard]] bool counting() const noexcept { return counting_; }

 private:
  struct Tile;
  // Runs a valid stage. `broadcast`: its activations count as broadcasts.
  void step(const Stage& stage, bool broadcast);

  FabricConfig config_;
  std::vector<Tile> tiles_;
  Counters counters_{};
  std::vector<TileCounters> tile_counters_;
  bool counting_{true};
};

}  // namespace tfmbs::fabric

#pragma GCC visibility pop
