// The energy table and formula (docs/fabric.md, "Energy").
#pragma once

#include "tfmbs/format/error.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::fabric {

// Picojoules an operation. Defaults: 45 nm, M. Horowitz, ISSCC 2014; derivation in docs/fabric.md.
struct EnergyTable {
  double mac_pj{0.1};     // one ternary multiply-accumulate of one lane
  double sram_pj{5.0};    // one 32-bit word read from or written to a bank
  double dram_pj{650.0};  // one 32-bit word moved between host memory and the device

  friend bool operator==(const EnergyTable&, const EnergyTable&) = default;
};

// Errors: kGeometry where a value is not a finite number from 0.
Status validate(const EnergyTable& table);

}  // namespace tfmbs::fabric

#pragma GCC visibility pop
