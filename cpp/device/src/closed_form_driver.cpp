// Counters from the formula, bytes on demand: no word is moved while a layer runs.
#include <memory>
#include <utility>

#include "bank_images.hpp"
#include "machine_driver.hpp"

namespace tfmbs::device {
namespace {

class ClosedFormDriver final : public MachineDriver {
 public:
  using MachineDriver::MachineDriver;

  [[nodiscard]] std::string_view name() const noexcept override { return "closed_form"; }
  [[nodiscard]] bool concurrent() const noexcept override { return true; }
  [[nodiscard]] Products products() const noexcept override { return Products::kKernels; }

  void prepare(LayerWork& work) override {
    if (images_.full() && under_way_ == 0) images_.materialize(machine());
    images_.reserve(work);
    ++under_way_;
  }

  [[nodiscard]] ActivationNeeds needs(const LayerWork& work) const noexcept override {
    if (!work.counted || work.statistics == nullptr) return {};
    return needs_of(work.schedule, *work.statistics);
  }

  Status run(LayerWork& work, const LayerInput& input,
             const execution::Executor& executor) override {
    work.activations = input.activations;
    if (work.samples != 0 && input.counts != nullptr) {
      count_forward(work.schedule, *work.statistics, input.activations, *input.counts, executor,
                    work.counts);
    }
    return {};
  }

  fabric::Counters commit(LayerWork& work) noexcept override {
    --under_way_;
    images_.commit(work);
    if (!work.counted || !counting()) return {};
    if (work.load) count_load(work.schedule, work.counts);
    machine().account(work.counts.total, work.counts.tiles);
    return work.counts.total;
  }

  void abort(LayerWork& /*work*/) noexcept override { --under_way_; }

  void restore(std::unique_ptr<State> state) noexcept override {
    images_.forget();  // of what is undone: save() had written out what was before
    MachineDriver::restore(std::move(state));
  }

  void leave(placement::LayerId layer) noexcept override {
    try {
      images_.materialize_layer(layer, machine());
    } catch (...) {  // no memory: the bytes are lost, the process is not
      images_.forget_layer(layer);
    }
  }

 protected:
  void settle() override { images_.materialize(machine()); }

 private:
  BankImages images_;
  std::size_t under_way_{0};
};

}  // namespace

std::unique_ptr<Driver> make_closed_form_driver(const fabric::FabricConfig& config) {
  return std::make_unique<ClosedFormDriver>(config);
}

}  // namespace tfmbs::device
