// A layer's account on a device: its place there, and what the device counts of it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "tfmbs/device/fabric.hpp"
#include "tfmbs/device/lane_statistics.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::device {

// Leaves the device at its end. Safe to use from several threads.
class Account {
 public:
  // Errors: as Fabric::enter. `replacing`: an account of the same device that leaves if this one
  // enters; it must not be used afterwards but to end it.
  static Result<std::unique_ptr<Account>> enter(LayerDescription layer,
                                                std::shared_ptr<Fabric> fabric,
                                                const Account* replacing = nullptr);
  ~Account() { fabric_->leave(id_); }
  Account(const Account&) = delete;
  Account& operator=(const Account&) = delete;

  [[nodiscard]] const std::shared_ptr<Fabric>& fabric() const noexcept { return fabric_; }
  // The name that the device agreed to.
  [[nodiscard]] const std::string& name() const noexcept { return name_; }

  // Whether a forward pass that is admitted now is counted in closed form, and so wants statistics.
  [[nodiscard]] bool wants_statistics() const noexcept {
    return fabric_->counting() && fabric_->counts_in_closed_form();
  }
  // For weights of the layer's shape: of all rows, or to be added in portions.
  [[nodiscard]] LaneStatistics statistics_of(BitPlaneView weights) const {
    return {weights, fabric_->config().geometry.lanes(), tile_slots_, group_depth_};
  }
  [[nodiscard]] LaneStatistics begin_statistics() const {
    return {outputs_, depth_, fabric_->config().geometry.lanes(), tile_slots_, group_depth_};
  }

  Status admit(const LayerWeights& weights, std::uint64_t samples, execution::Scratch& scratch,
               Fabric::Ticket& ticket) {
    return fabric_->admit(id_, weights, samples, scratch, ticket);
  }
  Result<bool> prefetch(const LayerWeights& weights) { return fabric_->prefetch(id_, weights); }
  Status set_pinned(bool pinned) { return fabric_->set_pinned(id_, pinned); }
  void note_sparsity(double sparsity) { fabric_->note_sparsity(id_, sparsity); }
  [[nodiscard]] LayerProfile profile() const { return fabric_->layer_profile(id_); }

 private:
  Account(LayerDescription layer, std::shared_ptr<Fabric> fabric, placement::LayerId id) noexcept;

  std::shared_ptr<Fabric> fabric_;
  placement::LayerId id_;
  std::string name_;
  std::uint64_t outputs_;
  std::uint64_t depth_;
  std::uint32_t tile_slots_;
  std::uint32_t group_depth_;
};

}  // namespace tfmbs::device

#pragma GCC visibility pop
