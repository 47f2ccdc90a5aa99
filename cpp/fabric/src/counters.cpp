#include "tfmbs/fabric/counters.hpp"

#include <array>
#include <cmath>
#include <string>
#include <utility>

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

Status validate(const EnergyTable& table) {
  constexpr std::array<std::pair<const char*, double EnergyTable::*>, 3> kFields{{
      {"mac_pj", &EnergyTable::mac_pj},
      {"sram_pj", &EnergyTable::sram_pj},
      {"dram_pj", &EnergyTable::dram_pj},
  }};
  for (const auto& [name, member] : kFields) {
    if (const double value = table.*member; !std::isfinite(value) || value < 0.0) {
      return Error{ErrorCode::kGeometry, std::string(name) + " is " + std::to_string(value) +
                                             "; allowed are finite numbers from 0"};
    }
  }
  return {};
}

}  // namespace tfmbs::fabric
