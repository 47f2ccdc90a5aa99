// The machine itself: every word is moved, every cycle stepped. The reference.
#include <memory>
#include <utility>

#include "machine_driver.hpp"
#include "stepped_forward.hpp"

namespace tfmbs::device {
namespace {

fabric::Counters operator-(fabric::Counters after, const fabric::Counters& before) noexcept {
  for (const auto& field : fabric::kCounterFields) after.*field.member -= before.*field.member;
  return after;
}

class SteppedDriver final : public MachineDriver {
 public:
  using MachineDriver::MachineDriver;

  [[nodiscard]] std::string_view name() const noexcept override { return "stepped"; }
  [[nodiscard]] bool concurrent() const noexcept override { return false; }
  [[nodiscard]] Products products() const noexcept override { return Products::kDriver; }

  // One piece of work at a time: its way back is a copy of the machine.
  void prepare(LayerWork& /*work*/) override {
    before_ = save();
    counters_before_ = counters();
  }

  [[nodiscard]] ActivationNeeds needs(const LayerWork& /*work*/) const noexcept override {
    return {.planes = true};
  }

  Status run(LayerWork& work, const LayerInput& input,
             const execution::Executor& /*executor*/) override {
    const BitPlaneMatrix weights = work.weights->rows(0, work.schedule.shape().outputs);
    const bool counts = counting();
    set_counting(counts && work.counted);
    Status status = step(work, weights.view(), input);
    set_counting(counts);
    return status;
  }

  fabric::Counters commit(LayerWork& work) noexcept override {
    if (work.counted) account(work.counts.total);
    before_.reset();
    return counters() - counters_before_;
  }

  void abort(LayerWork& /*work*/) noexcept override {
    if (before_) restore(std::move(before_));
    before_.reset();
  }

  void leave(placement::LayerId /*layer*/) noexcept override {}

 protected:
  void settle() override {}

 private:
  Status step(const LayerWork& work, BitPlaneView weights, const LayerInput& input) {
    if (work.load) {
      if (auto s = load_stepped(machine(), work.schedule, weights); !s) return s;
    }
    if (work.samples == 0) return {};
    return forward_stepped(machine(), work.schedule, weights, input.activations.planes, input.sums);
  }

  std::unique_ptr<State> before_;
  fabric::Counters counters_before_{};
};

}  // namespace

std::unique_ptr<Driver> make_stepped_driver(const fabric::FabricConfig& config) {
  return std::make_unique<SteppedDriver>(config);
}

}  // namespace tfmbs::device
