// What a slot points to, and the locks of all slots. A slot is a bare pointer in somebody else's
// memory, so nothing about it is safe to read but under a lock that does not live beside it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "tfmbs/runtime/layer.hpp"

// A layer, or how its definition failed.
struct tfmbs_layer {
  std::shared_ptr<tfmbs::runtime::Layer> layer{};
  std::uint64_t outputs{0};
  std::int32_t code{0};  // a status of tfmbs/c/layer.h, and its text
  std::string text{};
};

namespace tfmbs::c_interface {

struct SlotLocks {
  // One definition at a time, so that a layer that loses a race never takes a name. May be held
  // while a device is waited for, and so never taken by a forward.
  std::mutex define;
  // Reading or writing a slot, and nothing that waits.
  std::mutex slot;
};
SlotLocks& slot_locks();

// Whether there is a layer in a slot.
bool is_defined(tfmbs_layer* const* slot);
// A copy of what a slot holds, which keeps the layer from ending; nothing where it is empty.
std::optional<tfmbs_layer> read_slot(tfmbs_layer* const* slot);
// Puts something into a slot and gives what was there, which the caller must not end under a lock
// of these: a layer waits for its device.
[[nodiscard]] std::unique_ptr<tfmbs_layer> exchange_slot(tfmbs_layer** slot,
                                                         std::unique_ptr<tfmbs_layer> next);

}  // namespace tfmbs::c_interface
