// Every living device of the process, by name; and the fork handlers' way to them.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tfmbs/device/fabric.hpp"

namespace tfmbs::device {

class FabricRegistry {
 public:
  static FabricRegistry& instance();

  // Makes a device known, and gives it.
  std::shared_ptr<Fabric> add(std::shared_ptr<Fabric> fabric);
  // The same, or the living device of the same specification where there is one.
  std::shared_ptr<Fabric> find_or_add(std::shared_ptr<Fabric> fabric);
  void remove(const Fabric& fabric) noexcept;
  // The living device of that specification, or null.
  [[nodiscard]] std::shared_ptr<Fabric> find(const FabricSpec& spec);
  // A name that no device of any process has: it travels in layer specifications.
  [[nodiscard]] std::string unique_name();

  // Around fork(): the list's own lock is held from the first to one of the others.
  std::vector<std::shared_ptr<Fabric>> lock_all();
  void unlock() { mutex_.unlock(); }

 private:
  struct Entry {
    const Fabric* key;
    FabricSpec spec;
    std::weak_ptr<Fabric> fabric;
  };
  // A reference that is taken under the lock must not end under it: a device's end locks it again.
  [[nodiscard]] std::shared_ptr<Fabric> find_locked(const FabricSpec& spec) const;
  std::mutex mutex_;
  std::vector<Entry> entries_;
  std::uint64_t next_name_{1};
};

}  // namespace tfmbs::device
