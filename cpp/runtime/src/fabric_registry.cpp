#include "fabric_registry.hpp"

#include <algorithm>

namespace tfmbs::runtime {

FabricRegistry& FabricRegistry::instance() {
  static auto* const registry = new FabricRegistry;  // outlives every device
  return *registry;
}

std::shared_ptr<Fabric> FabricRegistry::adopt(std::shared_ptr<Fabric> fabric) {
  const std::scoped_lock lock(mutex_);
  for (const Entry& entry : entries_) {
    if (auto living = entry.fabric.lock(); living && living->spec() == fabric->spec()) {
      return living;
    }
  }
  entries_.push_back({fabric.get(), fabric});
  return fabric;
}

void FabricRegistry::remove(const Fabric& fabric) noexcept {
  const std::scoped_lock lock(mutex_);
  std::erase_if(entries_, [&fabric](const Entry& entry) { return entry.key == &fabric; });
}

std::shared_ptr<Fabric> FabricRegistry::find(const FabricSpec& spec) {
  const std::scoped_lock lock(mutex_);
  for (const Entry& entry : entries_) {
    if (auto living = entry.fabric.lock(); living && living->spec() == spec) return living;
  }
  return nullptr;
}

std::string FabricRegistry::unique_name() {
  const std::scoped_lock lock(mutex_);
  return "fabric-" + std::to_string(next_name_++);
}

std::vector<std::shared_ptr<Fabric>> FabricRegistry::lock_all() {
  mutex_.lock();
  std::vector<std::shared_ptr<Fabric>> living;
  for (const Entry& entry : entries_) {
    if (auto fabric = entry.fabric.lock()) living.push_back(std::move(fabric));
  }
  return living;
}

}  // namespace tfmbs::runtime
