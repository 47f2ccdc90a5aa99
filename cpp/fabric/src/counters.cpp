#include "tfmbs/fabric/counters.hpp"

namespace tfmbs::fabric {

Counters& Counters::operator+=(const Counters& other) noexcept {
  for (const CounterField& field : kCounterFields) {
    this->*field.member += other.*field.member;
  }
  return *this;
}

double Counters::utilization(const Geometry& geometry) const noexcept {
  if (cycles == 0) {
    return 0.0;
  }
  return static_cast<double>(active_ops) /
         (static_cast<double>(cycles) * geometry.tiles() * geometry.lanes());
}

double Counters::energy_pj(const EnergyTable& table) const noexcept {
  return table.mac_pj * static_cast<double>(active_ops) +
         table.sram_pj * static_cast<double>(sram_reads + sram_writes) +
         table.dram_pj * static_cast<double>(mem_reads + mem_writes);
}

double Counters::energy_saved_pj(const EnergyTable& table) const noexcept {
  return table.mac_pj * static_cast<double>(zero_skips) +
         table.sram_pj * static_cast<double>(sram_reads_saved);
}

TileCounters& TileCounters::operator+=(const TileCounters& other) noexcept {
  for (const TileCounterField& field : kTileCounterFields) {
    this->*field.member += other.*field.member;
  }
  return *this;
}

}  // namespace tfmbs::fabric
