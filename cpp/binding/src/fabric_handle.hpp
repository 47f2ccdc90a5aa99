// What Python holds of a device.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <utility>

#include "tfmbs/device/fabric.hpp"

namespace tfmbs::binding {

// The end of a device waits for what it is doing: where this is the last reference, it goes without
// the interpreter's lock.
class SharedFabric : public std::shared_ptr<device::Fabric> {
 public:
  SharedFabric() = default;
  SharedFabric(std::shared_ptr<device::Fabric> fabric)  // NOLINT(google-explicit-constructor)
      : std::shared_ptr<device::Fabric>(std::move(fabric)) {}
  SharedFabric(const SharedFabric&) = default;
  SharedFabric(SharedFabric&&) = default;
  SharedFabric& operator=(const SharedFabric&) = default;
  SharedFabric& operator=(SharedFabric&&) = default;
  ~SharedFabric() {
    // The stable ABI's way to ask whether this thread holds that lock.
    if (use_count() != 1 || !nanobind::is_alive() || PyThreadState_GetDict() == nullptr) return;
    const nanobind::gil_scoped_release release;
    reset();
  }
};

struct FabricHandle {
  SharedFabric fabric;
};

}  // namespace tfmbs::binding
