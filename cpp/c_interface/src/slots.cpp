#include "slots.hpp"

#include <utility>

#include "fork.hpp"

namespace tfmbs::c_interface {

namespace {
// NOLINTNEXTLINE(bugprone-throwing-static-initialization): what it would throw is no memory
[[maybe_unused]] const bool forks_are_handled = handle_forks();
}  // namespace

SlotLocks& slot_locks() {
  static auto* const locks = new SlotLocks;  // outlives every module
  return *locks;
}

bool is_defined(tfmbs_layer* const* slot) {
  const std::scoped_lock lock(slot_locks().slot);
  return *slot != nullptr && (*slot)->layer != nullptr;
}

std::optional<tfmbs_layer> read_slot(tfmbs_layer* const* slot) {
  const std::scoped_lock lock(slot_locks().slot);
  if (*slot == nullptr) return std::nullopt;
  return **slot;
}

std::unique_ptr<tfmbs_layer> exchange_slot(tfmbs_layer** slot, std::unique_ptr<tfmbs_layer> next) {
  const std::scoped_lock lock(slot_locks().slot);
  return std::unique_ptr<tfmbs_layer>(std::exchange(*slot, next.release()));
}

}  // namespace tfmbs::c_interface
