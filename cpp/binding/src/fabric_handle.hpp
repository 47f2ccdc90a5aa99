// What Python holds of a device.
#pragma once

#include <memory>

#include "tfmbs/runtime/fabric.hpp"

namespace tfmbs::binding {

struct FabricHandle {
  std::shared_ptr<runtime::Fabric> fabric;
};

}  // namespace tfmbs::binding
