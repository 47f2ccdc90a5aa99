// Every living device of the process, by name; and the fork handlers' way to them.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tfmbs/runtime/fabric.hpp"

namespace tfmbs::runtime {

class FabricRegistry {
 public:
  static FabricRegistry& instance();

  // Makes a device known. Where one of its name has come to life meanwhile, gives that one.
  std::shared_ptr<Fabric> adopt(std::shared_ptr<Fabric> fabric);
  void remove(const Fabric& fabric) noexcept;
  // The living device of that name and configuration, or null.
  [[nodiscard]] std::shared_ptr<Fabric> find(const FabricSpec& spec);
  [[nodiscard]] std::string unique_name();

  // Around fork(): the list's own lock is held from the first to one of the others.
  std::vector<std::shared_ptr<Fabric>> lock_all();
  void unlock() { mutex_.unlock(); }

 private:
  struct Entry {
    const Fabric* key;
    std::weak_ptr<Fabric> fabric;
  };
  std::mutex mutex_;
  std::vector<Entry> entries_;
  std::uint64_t next_name_{1};
};

}  // namespace tfmbs::runtime
