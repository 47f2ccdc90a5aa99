// The operands of a linear layer's forward pass but for its weights.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tfmbs/kernels/kernels.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::linear {

// Row-major, contiguous: samples x depth in, samples x outputs out. The arithmetic after the exact
// product is fp64 where the input is fp64, else fp32 (kernels::EpilogueArgs has the formula).
struct LinearArgs {
  const void* input{nullptr};
  kernels::FloatType input_type{kernels::FloatType::kFloat32};
  std::size_t samples{0};
  const void* bias{nullptr};  // or null
  kernels::FloatType bias_type{kernels::FloatType::kFloat32};
  void* output{nullptr};
  kernels::FloatType output_type{kernels::FloatType::kFloat32};
  bool relu{false};  // in the same pass over the output
  // For a layer whose depth is split over processes. One a sample, or null: the absolute maximum of
  // what the other processes hold of it, which then counts in its scale (fp32 values unless the
  // input is fp64). Modes without scales do not look at it.
  const double* magnitudes{nullptr};
  // Or null: where the exact sums go, scale groups x samples x outputs. There is no output then:
  // who adds the processes' sums scales them (apply_scales).
  std::int32_t* sums{nullptr};
};

}  // namespace tfmbs::linear

#pragma GCC visibility pop
