#include "tfmbs/device/account.hpp"

#include <bit>
#include <new>
#include <optional>

namespace tfmbs::device {

Account::Account(LayerDescription layer, std::shared_ptr<Fabric> fabric,
                 placement::LayerId id) noexcept
    : fabric_(std::move(fabric)),
      id_(id),
      name_(std::move(layer.name)),
      outputs_(layer.outputs),
      depth_(layer.depth),
      tile_slots_(static_cast<std::uint32_t>(std::popcount(
          layer.tile_mask != 0
              ? layer.tile_mask
              : placement::default_tile_mask(fabric_->config().geometry, layer.outputs)))),
      group_depth_(layer.group_depth) {}

Result<std::unique_ptr<Account>> Account::enter(LayerDescription layer,
                                                std::shared_ptr<Fabric> fabric,
                                                const Account* replacing) {
  // Its memory is there before the layer enters: where memory runs out, the layer has not entered.
  struct Free {
    void operator()(void* memory) const noexcept { ::operator delete(memory); }
  };
  std::unique_ptr<void, Free> memory(::operator new(sizeof(Account)));
  const auto id =
      fabric->enter(layer, replacing == nullptr ? std::nullopt : std::optional(replacing->id_));
  if (!id) return id.error();
  return std::unique_ptr<Account>(::new (memory.release())
                                      Account(std::move(layer), std::move(fabric), id.value()));
}

}  // namespace tfmbs::device
