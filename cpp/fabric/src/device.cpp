#include "tfmbs/fabric/device.hpp"

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

#include "dma_engine.hpp"
#include "tfmbs/format/pt5.hpp"
#include "tfmbs/format/text.hpp"
#include "tile.hpp"
#include "tile_engine.hpp"

namespace tfmbs::fabric {
namespace {

using Kind = Transfer::Kind;

std::string kind_name(Kind kind) {
  switch (kind) {
    case Kind::kWeights:
      return "weights to Bank A";
    case Kind::kActivations:
      return "activations to Bank B";
    case Kind::kPartialsIn:
      return "partial sums in";
    case Kind::kResultsOut:
      return "results out";
  }
  return "unknown kind";
}

std::uint64_t region_words(Kind kind, const Geometry& geometry) noexcept {
  switch (kind) {
    case Kind::kWeights:
      return geometry.bank_a_words();
    case Kind::kActivations:
      return geometry.bank_b_words();
    case Kind::kPartialsIn:
    case Kind::kResultsOut:
      return geometry.lanes();
  }
  return 0;
}

Status check_transfer(const Transfer& transfer, std::size_t index, const Geometry& geometry) {
  const auto where = [&] {
    return "transfer " + std::to_string(index) + " (" + kind_name(transfer.kind) + "): ";
  };
  const std::uint64_t mask = transfer.tile_mask;
  const bool many = transfer.kind == Kind::kActivations;
  if (mask == 0 || (mask & ~geometry.all_tiles()) != 0 || (!many && !std::has_single_bit(mask))) {
    return Error{ErrorCode::kDescriptor, where() + "tile_mask is " + hex(mask) + "; allowed is " +
                                             (many ? "any but 0" : "one") + " of the bits of " +
                                             hex(geometry.all_tiles())};
  }
  const std::uint64_t words = words_of(transfer);
  const std::uint64_t room = region_words(transfer.kind, geometry);
  if (transfer.word > room || words > room - transfer.word) {
    return Error{ErrorCode::kAddress, where() + std::to_string(words) + " words from word " +
                                          std::to_string(transfer.word) +
                                          " on go beyond the region's " + std::to_string(room)};
  }
  if (transfer.kind == Kind::kWeights || transfer.kind == Kind::kActivations) {
    if (Status status = check_fabric_words(transfer.source, 0); !status) {
      Error error = std::move(status).error();
      error.message = where() + error.message;
      return error;
    }
  }
  return {};
}

// A transfer must not write what a pass beside it reads: which of the two comes first would hang
// on the data.
Status check_hazard(const Transfer& transfer, std::size_t transfer_index,
                    const TaskDescriptor& task, std::size_t pass_index, const Geometry& geometry) {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  switch (transfer.kind) {
    case Kind::kWeights:
      first = task.weight_base / kBytesPerWord;
      count = std::uint64_t{task.depth} * geometry.words_per_depth();
      break;
    case Kind::kActivations:
      first = task.activation_base / kBytesPerWord;
      count = task.planes * pt5_words(task.depth);
      break;
    case Kind::kPartialsIn:
    case Kind::kResultsOut:
      return {};  // before the commit, whatever the data
  }
  const bool overlap = (transfer.tile_mask & task.tile_mask) != 0 &&
                       transfer.word < first + count &&
                       first < transfer.word + words_of(transfer) && words_of(transfer) != 0;
  if (!overlap) {
    return {};
  }
  return Error{ErrorCode::kDescriptor,
               "transfer " + std::to_string(transfer_index) + " (" + kind_name(transfer.kind) +
                   ") writes words from " + std::to_string(transfer.word) + " on, of which pass " +
                   std::to_string(pass_index) + " of the same stage reads words " +
                   std::to_string(first) + " to " + std::to_string(first + count - 1)};
}

Status check_stage(const Stage& stage, const Geometry& geometry) {
  std::uint64_t used = 0;
  for (std::size_t p = 0; p < stage.passes.size(); ++p) {
    const TaskDescriptor& task = stage.passes[p];
    if (Status status = validate(task, geometry); !status) {
      return status;
    }
    if ((used & task.tile_mask) != 0) {
      return Error{ErrorCode::kDescriptor,
                   "pass " + std::to_string(p) + " runs on tiles " + hex(task.tile_mask) +
                       ", of which earlier passes of the stage have " + hex(used & task.tile_mask)};
    }
    used |= task.tile_mask;
  }
  for (std::size_t i = 0; i < stage.transfers.size(); ++i) {
    if (Status status = check_transfer(stage.transfers[i], i, geometry); !status) {
      return status;
    }
    for (std::size_t p = 0; p < stage.passes.size(); ++p) {
      if (Status status = check_hazard(stage.transfers[i], i, stage.passes[p], p, geometry);
          !status) {
        return status;
      }
    }
  }
  return {};
}

}  // namespace

struct Device::Tile : TileState {
  using TileState::TileState;
};

Device::Device(const FabricConfig& config)
    : config_(config), tile_counters_(config.geometry.tiles()) {
  tiles_.reserve(config.geometry.tiles());
  for (std::uint32_t t = 0; t < config.geometry.tiles(); ++t) {
    tiles_.emplace_back(config.geometry);
  }
}

Device::~Device() = default;
Device::Device(const Device&) = default;
Device::Device(Device&&) noexcept = default;
Device& Device::operator=(Device&&) noexcept = default;

Status Device::execute(const Stage& stage) {
  if (Status status = check_stage(stage, geometry()); !status) {
    return status;
  }
  step(stage, true);
  return {};
}

void Device::step(const Stage& stage, bool broadcast) {
  // Everything that allocates comes before anything that changes the device.
  std::vector<Pass> passes;
  std::vector<TileEngine> engines;
  std::vector<TileCounters> tile_counts(tiles_.size());
  passes.reserve(stage.passes.size());
  engines.reserve(tiles_.size());
  for (const TaskDescriptor& task : stage.passes) {
    const Pass& pass = passes.emplace_back(task, geometry());
    for_each_tile(task.tile_mask,
                  [&](std::uint32_t t) { engines.emplace_back(pass, tiles_[t], t); });
  }
  Counters counts;
  DmaEngine dma(stage.transfers);
  const auto tile_of = [this](std::uint32_t t) -> TileState& { return tiles_[t]; };

  for (TileEngine& engine : engines) {
    engine.start();
  }
  while (true) {
    const bool moving = dma.busy();
    const bool computing = std::any_of(engines.begin(), engines.end(),
                                       [](const TileEngine& engine) { return engine.busy(); });
    if (!moving && !computing) {
      break;
    }
    ++counts.cycles;
    if (moving) {
      ++counts.dma_cycles;
      const Transfer& transfer = dma.current();
      (transfer.kind == Kind::kResultsOut ? counts.mem_writes : counts.mem_reads) += 1;
      if (transfer.kind == Kind::kActivations && broadcast) {
        ++counts.broadcasts;
      }
      if (transfer.kind == Kind::kWeights || transfer.kind == Kind::kActivations) {
        for_each_tile(transfer.tile_mask, [&](std::uint32_t t) { ++tile_counts[t].sram_writes; });
      }
      dma.tick(tile_of);
    }
    if (computing) {
      ++counts.compute_cycles;
      for (TileEngine& engine : engines) {
        if (engine.busy()) {
          engine.tick();
        } else {
          engine.stall();
        }
      }
    }
  }
  for (TileEngine& engine : engines) {
    engine.commit();
    tile_counts[engine.tile_index()] += engine.counts();
  }

  // The same stage without zero-skip.
  std::uint64_t dense = 0;
  for (const TaskDescriptor& task : stage.passes) {
    const std::uint64_t steps = std::uint64_t{task.planes} * task.depth;
    dense = std::max(dense, kStartCycles + steps + kDrainCycles);
  }
  counts.dense_cycles = std::max(dense, counts.dma_cycles);

  for (const TileCounters& tile : tile_counts) {
    counts.active_ops += tile.active_ops;
    counts.zero_skips += tile.zero_skips;
    counts.sram_reads += tile.sram_reads;
    counts.sram_writes += tile.sram_writes;
    counts.sram_reads_saved += tile.sram_reads_saved;
    counts.overflow_flags += tile.overflow_flags;
  }
  account(counts, tile_counts);
}

Status Device::load(std::uint64_t address, std::span<const std::uint32_t> words) {
  const Result<Location> found = geometry().locate(address, kBytesPerWord * words.size());
  if (!found) {
    return found.error();
  }
  const Location& location = found.value();
  Transfer transfer{
      .tile_mask = std::uint64_t{1} << location.tile, .word = location.word, .source = words};
  switch (location.region) {
    case Region::kResults:
      transfer.kind = Kind::kPartialsIn;
      break;
    case Region::kBankA:
      transfer.kind = Kind::kWeights;
      break;
    case Region::kBankB:
      transfer.kind = Kind::kActivations;
      break;
    case Region::kBroadcast:
      transfer.kind = Kind::kActivations;
      transfer.tile_mask = geometry().all_tiles();
      break;
  }
  if (location.region != Region::kResults) {
    if (Status status = check_fabric_words(words, 0); !status) {
      Error error = std::move(status).error();
      error.message = "load at address " + hex(address) + ": " + error.message;
      return error;
    }
  }
  step({.transfers = {&transfer, 1}}, location.region == Region::kBroadcast);
  return {};
}

Status Device::read(std::uint64_t address, std::span<std::uint32_t> words) const {
  const Result<Location> found = geometry().locate(address, kBytesPerWord * words.size());
  if (!found) {
    return found.error();
  }
  const Location& location = found.value();
  if (location.region == Region::kBroadcast) {
    return Error{ErrorCode::kAddress,
                 "address " + hex(address) +
                     " lies in the broadcast window, which can be written but not read",
                 address};
  }
  const Tile& tile = tiles_[location.tile];
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::size_t at = location.word + i;
    words[i] = location.region == Region::kBankA   ? tile.bank_a[at]
               : location.region == Region::kBankB ? tile.bank_b[at]
                                                   : static_cast<std::uint32_t>(tile.results[at]);
  }
  return {};
}

Status Device::run(const TaskDescriptor& task) { return execute({.passes = {&task, 1}}); }

std::span<const std::int32_t> Device::results(std::uint32_t tile) const noexcept {
  return tiles_[tile].results;
}

std::span<const std::uint8_t> Device::overflow(std::uint32_t tile) const noexcept {
  return tiles_[tile].overflow;
}

void Device::place(const Transfer& transfer) noexcept {
  for (std::size_t i = 0; i < words_of(transfer); ++i) {
    move_word(transfer, i, [this](std::uint32_t t) -> TileState& { return tiles_[t]; });
  }
}

void Device::place_results(std::uint32_t tile, std::uint32_t first_lane,
                           std::span<const std::int32_t> values) noexcept {
  std::copy(values.begin(), values.end(),
            tiles_[tile].results.begin() + static_cast<std::ptrdiff_t>(first_lane));
}

void Device::account(const Counters& counts, std::span<const TileCounters> tiles) noexcept {
  if (!counting_) {
    return;
  }
  counters_ += counts;
  for (std::size_t t = 0; t < std::min(tiles.size(), tile_counters_.size()); ++t) {
    tile_counters_[t] += tiles[t];
  }
}

void Device::reset_counters() noexcept {
  counters_ = {};
  std::fill(tile_counters_.begin(), tile_counters_.end(), TileCounters{});
  for (Tile& tile : tiles_) {
    std::fill(tile.overflow.begin(), tile.overflow.end(), std::uint8_t{0});
  }
}

}  // namespace tfmbs::fabric
