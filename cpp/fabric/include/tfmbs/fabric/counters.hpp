// What the device counts, in one list: names, storage and sums derive from it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tfmbs/fabric/energy.hpp"
#include "tfmbs/format/geometry.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::fabric {

// Meanings: docs/fabric.md, "Counters".
struct Counters {
  std::uint64_t cycles{0};
  std::uint64_t compute_cycles{0};
  std::uint64_t dma_cycles{0};
  std::uint64_t dense_cycles{0};
  std::uint64_t active_ops{0};
  std::uint64_t zero_skips{0};
  std::uint64_t mem_reads{0};
  std::uint64_t mem_writes{0};
  std::uint64_t broadcasts{0};
  std::uint64_t sram_reads{0};
  std::uint64_t sram_writes{0};
  std::uint64_t sram_reads_saved{0};
  std::uint64_t residency_hits{0};
  std::uint64_t residency_misses{0};
  std::uint64_t evictions{0};
  std::uint64_t overflow_flags{0};

  Counters& operator+=(const Counters& other) noexcept;
  friend bool operator==(const Counters&, const Counters&) = default;

  [[nodiscard]] std::uint64_t cycles_saved() const noexcept { return dense_cycles - cycles; }
  [[nodiscard]] double utilization(const Geometry& geometry) const noexcept;
  [[nodiscard]] double energy_pj(const EnergyTable& table) const noexcept;
  [[nodiscard]] double energy_saved_pj(const EnergyTable& table) const noexcept;
};

struct CounterField {
  std::string_view name;
  std::uint64_t Counters::* member;
};
// Every stored counter by name, in the order in which profiles show them.
inline constexpr std::array<CounterField, 16> kCounterFields{{
    {"cycles", &Counters::cycles},
    {"compute_cycles", &Counters::compute_cycles},
    {"dma_cycles", &Counters::dma_cycles},
    {"dense_cycles", &Counters::dense_cycles},
    {"active_ops", &Counters::active_ops},
    {"zero_skips", &Counters::zero_skips},
    {"mem_reads", &Counters::mem_reads},
    {"mem_writes", &Counters::mem_writes},
    {"broadcasts", &Counters::broadcasts},
    {"sram_reads", &Counters::sram_reads},
    {"sram_writes", &Counters::sram_writes},
    {"sram_reads_saved", &Counters::sram_reads_saved},
    {"residency_hits", &Counters::residency_hits},
    {"residency_misses", &Counters::residency_misses},
    {"evictions", &Counters::evictions},
    {"overflow_flags", &Counters::overflow_flags},
}};
static_assert(sizeof(Counters) == kCounterFields.size() * sizeof(std::uint64_t),
              "every counter is in the list");

// What one tile did.
struct TileCounters {
  std::uint64_t compute_cycles{0};  // its own passes: START + C + DRAIN each
  std::uint64_t stall_cycles{0};    // waiting at the barrier for a slower tile of the same pass
  std::uint64_t active_ops{0};
  std::uint64_t zero_skips{0};
  std::uint64_t sram_reads{0};
  std::uint64_t sram_writes{0};
  std::uint64_t sram_reads_saved{0};
  std::uint64_t overflow_flags{0};

  TileCounters& operator+=(const TileCounters& other) noexcept;
  friend bool operator==(const TileCounters&, const TileCounters&) = default;
};

struct TileCounterField {
  std::string_view name;
  std::uint64_t TileCounters::* member;
};
inline constexpr std::array<TileCounterField, 8> kTileCounterFields{{
    {"compute_cycles", &TileCounters::compute_cycles},
    {"stall_cycles", &TileCounters::stall_cycles},
    {"active_ops", &TileCounters::active_ops},
    {"zero_skips", &TileCounters::zero_skips},
    {"sram_reads", &TileCounters::sram_reads},
    {"sram_writes", &TileCounters::sram_writes},
    {"sram_reads_saved", &TileCounters::sram_reads_saved},
    {"overflow_flags", &TileCounters::overflow_flags},
}};
static_assert(sizeof(TileCounters) == kTileCounterFields.size() * sizeof(std::uint64_t));

}  // namespace tfmbs::fabric

#pragma GCC visibility pop
