// What drivers over the stepped machine (fabric::Device) share: the address map and the counters.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "tfmbs/device/driver.hpp"
#include "tfmbs/fabric/device.hpp"

namespace tfmbs::device {

class MachineDriver : public Driver {
 public:
  explicit MachineDriver(const fabric::FabricConfig& config)
      : machine_(std::make_unique<fabric::Device>(config)) {}

  Status load(std::uint64_t address, std::span<const std::uint32_t> words) override {
    settle();
    return machine_->load(address, words);
  }
  Status read(std::uint64_t address, std::span<std::uint32_t> words) override {
    settle();
    return machine_->read(address, words);
  }
  Status execute(const fabric::TaskDescriptor& task) override {
    settle();
    return machine_->run(task);
  }
  Result<std::vector<std::int32_t>> results(std::uint32_t tile) override {
    settle();
    const auto lanes = machine_->results(tile);
    return std::vector<std::int32_t>(lanes.begin(), lanes.end());
  }

  [[nodiscard]] const fabric::Counters& counters() const noexcept override {
    return machine_->counters();
  }
  [[nodiscard]] std::span<const fabric::TileCounters> tile_counters() const noexcept override {
    return machine_->tile_counters();
  }
  void account(const fabric::Counters& counts) noexcept override {
    if (counting()) machine_->account(counts, {});
  }
  void reset_counters() noexcept override { machine_->reset_counters(); }
  void set_counting(bool on) noexcept override { machine_->set_counting(on); }
  [[nodiscard]] bool counting() const noexcept override { return machine_->counting(); }

  [[nodiscard]] std::unique_ptr<State> save() override {
    settle();
    return std::make_unique<Saved>(*machine_);
  }
  void restore(std::unique_ptr<State> state) noexcept override {
    machine_.swap(static_cast<Saved&>(*state).machine);
  }

 protected:
  // Brings the machine's memory up to date.
  virtual void settle() = 0;
  [[nodiscard]] fabric::Device& machine() noexcept { return *machine_; }

 private:
  struct Saved final : State {
    explicit Saved(const fabric::Device& device)
        : machine(std::make_unique<fabric::Device>(device)) {}
    std::unique_ptr<fabric::Device> machine;
  };

  std::unique_ptr<fabric::Device> machine_;
};

}  // namespace tfmbs::device
