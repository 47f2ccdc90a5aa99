// A forward's input as its products and its counters want it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tfmbs/runtime/executor.hpp"
#include "tfmbs/runtime/layer.hpp"
#include "tfmbs/runtime/layer_spec.hpp"
#include "tfmbs/runtime/quantized_activations.hpp"

namespace tfmbs::runtime {

// One value a sample: its scale (null for 1), and 1 where it holds a value that is not finite.
struct SampleScales {
  const double* scales;
  const std::uint8_t* nan_rows;
};

// What it makes lies in memory that the calling thread keeps: one at a time a thread.
class InputQuantizer final : public ActivationSource {
 public:
  // The arguments must outlive it.
  InputQuantizer(const LinearArgs& args, std::size_t depth, Activation activation,
                 const Executor& executor) noexcept
      : args_(args), depth_(depth), activation_(activation), executor_(executor) {}

  QuantizedActivations quantize(const ActivationRequest& request) override;

  // Of the last quantize():
  [[nodiscard]] const QuantizedActivations& activations() const noexcept { return activations_; }
  [[nodiscard]] const SampleScales& scales() const noexcept { return scales_; }

 private:
  void ternarize(const ActivationRequest& request);
  void quantize_int8(const ActivationRequest& request);

  const LinearArgs& args_;
  std::size_t depth_;
  Activation activation_;
  const Executor& executor_;
  QuantizedActivations activations_{};
  SampleScales scales_{nullptr, nullptr};
};

}  // namespace tfmbs::runtime
