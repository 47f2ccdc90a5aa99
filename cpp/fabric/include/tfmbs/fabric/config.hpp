// What a device is built from.
#pragma once

#include "tfmbs/fabric/energy.hpp"
#include "tfmbs/format/geometry.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::fabric {

struct FabricConfig {
  Geometry geometry{};
  EnergyTable energy{};

  friend bool operator==(const FabricConfig&, const FabricConfig&) = default;
};

}  // namespace tfmbs::fabric

#pragma GCC visibility pop
