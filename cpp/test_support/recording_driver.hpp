// A driver that notes in which order work was admitted.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tfmbs/device/driver.hpp"

namespace tfmbs::testing {

class RecordingDriver final : public device::Driver {
 public:
  struct Admitted {
    std::string name;
    std::uint64_t samples;  // 0: a load
  };

  explicit RecordingDriver(std::unique_ptr<device::Driver> driver) : driver_(std::move(driver)) {}

  // Only while no work is under way.
  [[nodiscard]] const std::vector<Admitted>& admitted() const noexcept { return admitted_; }

  [[nodiscard]] std::string_view name() const noexcept override { return driver_->name(); }
  [[nodiscard]] bool concurrent() const noexcept override { return driver_->concurrent(); }
  [[nodiscard]] device::Products products() const noexcept override { return driver_->products(); }
  void prepare(device::LayerWork& work) override {
    driver_->prepare(work);
    admitted_.push_back({std::string(work.name), work.samples});
  }
  [[nodiscard]] device::ActivationNeeds needs(
      const device::LayerWork& work) const noexcept override {
    return driver_->needs(work);
  }
  Status run(device::LayerWork& work, const device::LayerInput& input,
             const execution::Executor& executor) override {
    return driver_->run(work, input, executor);
  }
  fabric::Counters commit(device::LayerWork& work) noexcept override {
    return driver_->commit(work);
  }
  void abort(device::LayerWork& work) noexcept override { driver_->abort(work); }
  void leave(placement::LayerId layer) noexcept override { driver_->leave(layer); }
  Status load(std::uint64_t address, std::span<const std::uint32_t> words) override {
    return driver_->load(address, words);
  }
  Status read(std::uint64_t address, std::span<std::uint32_t> words) override {
    return driver_->read(address, words);
  }
  Status execute(const fabric::TaskDescriptor& task) override { return driver_->execute(task); }
  Result<std::vector<std::int32_t>> results(std::uint32_t tile) override {
    return driver_->results(tile);
  }
  [[nodiscard]] const fabric::Counters& counters() const noexcept override {
    return driver_->counters();
  }
  [[nodiscard]] std::span<const fabric::TileCounters> tile_counters() const noexcept override {
    return driver_->tile_counters();
  }
  void account(const fabric::Counters& counts) noexcept override { driver_->account(counts); }
  void reset_counters() noexcept override { driver_->reset_counters(); }
  void set_counting(bool on) noexcept override { driver_->set_counting(on); }
  [[nodiscard]] bool counting() const noexcept override { return driver_->counting(); }
  [[nodiscard]] std::unique_ptr<State> save() override { return driver_->save(); }
  void restore(std::unique_ptr<State> state) noexcept override {
    driver_->restore(std::move(state));
  }

 private:
  std::unique_ptr<device::Driver> driver_;
  std::vector<Admitted> admitted_;
};

}  // namespace tfmbs::testing
