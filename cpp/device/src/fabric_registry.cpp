#include "fabric_registry.hpp"

#include <algorithm>
#include <random>
#include <utility>

#include "tfmbs/device/fork.hpp"
#include "tfmbs/format/text.hpp"

namespace tfmbs::device {

namespace {

// Devices whose locks are held, from before a fork to after it.
std::vector<std::shared_ptr<Fabric>>& held() {
  static auto* const fabrics = new std::vector<std::shared_ptr<Fabric>>;
  return *fabrics;
}

}  // namespace

void before_fork() {
  held() = FabricRegistry::instance().lock_all();
  for (const auto& fabric : held()) fabric->before_fork();
}

// Taken over before anything is unlocked, for the next fork fills it; and ended when all is, for a
// device's end takes locks.
void after_fork_in_parent() {
  const auto fabrics = std::exchange(held(), {});
  for (const auto& fabric : fabrics) fabric->after_fork_in_parent();
  FabricRegistry::instance().unlock();
}

void after_fork_in_child() {
  const auto fabrics = std::exchange(held(), {});
  for (const auto& fabric : fabrics) fabric->after_fork_in_child();
  FabricRegistry::instance().unlock();
}

FabricRegistry& FabricRegistry::instance() {
  static auto* const registry = new FabricRegistry;  // outlives every device
  return *registry;
}

std::shared_ptr<Fabric> FabricRegistry::find_locked(const FabricSpec& spec) const {
  for (const Entry& entry : entries_) {
    if (entry.spec == spec) {
      if (auto living = entry.fabric.lock()) return living;
    }
  }
  return nullptr;
}

std::shared_ptr<Fabric> FabricRegistry::add(std::shared_ptr<Fabric> fabric) {
  const std::scoped_lock lock(mutex_);
  entries_.push_back({fabric.get(), fabric->spec(), fabric});
  return fabric;
}

std::shared_ptr<Fabric> FabricRegistry::find_or_add(std::shared_ptr<Fabric> fabric) {
  std::shared_ptr<Fabric> living;  // ends after the lock has
  const std::scoped_lock lock(mutex_);
  living = find_locked(fabric->spec());
  if (living) return living;
  entries_.push_back({fabric.get(), fabric->spec(), fabric});
  return fabric;
}

void FabricRegistry::remove(const Fabric& fabric) noexcept {
  const std::scoped_lock lock(mutex_);
  std::erase_if(entries_, [&fabric](const Entry& entry) { return entry.key == &fabric; });
}

std::shared_ptr<Fabric> FabricRegistry::find(const FabricSpec& spec) {
  const std::scoped_lock lock(mutex_);
  return find_locked(spec);
}

std::string FabricRegistry::unique_name() {
  const std::scoped_lock lock(mutex_);
  std::random_device entropy;  // not one token a process: a forked child makes names of its own
  return "fabric-" + std::to_string(next_name_++) + "-" +
         hex(std::uint64_t{entropy()} << 32 | entropy()).substr(2);
}

std::vector<std::shared_ptr<Fabric>> FabricRegistry::lock_all() {
  mutex_.lock();
  std::vector<std::shared_ptr<Fabric>> living;
  for (const Entry& entry : entries_) {
    if (auto fabric = entry.fabric.lock()) living.push_back(std::move(fabric));
  }
  return living;
}

}  // namespace tfmbs::device
