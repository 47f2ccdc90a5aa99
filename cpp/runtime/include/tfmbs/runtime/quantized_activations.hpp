// The quantized activations of one forward.
#pragma once

#include <cstdint>

#include "tfmbs/runtime/closed_form.hpp"

namespace tfmbs::runtime {

struct QuantizedActivations {
  // Of int8 activations `words` is null where neither telemetry nor the stepped engine wants them.
  ActivationPlanes planes{};
  const std::int8_t* values{nullptr};  // of int8 activations, samples x depth
};

}  // namespace tfmbs::runtime
