// The forms in which a layer's weights arrive. All are borrowed, and of outputs x depth, row-major.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tfmbs/kernels/kernels.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::linear {

// Floats, contiguous, to be quantized.
struct FloatWeights {
  const void* data{nullptr};
  kernels::FloatType type{kernels::FloatType::kFloat32};
  std::uint64_t outputs{0};
  std::uint64_t depth{0};
};

// Trits, and one scale or one an output.
struct TritSource {
  const std::int8_t* trits{nullptr};
  std::uint64_t outputs{0};
  std::uint64_t depth{0};
  const double* scales{nullptr};
  std::size_t scale_count{1};
  const std::uint8_t* nan_outputs{nullptr};  // 1 where an output is NaN, one each; null: none is
};

// Constant weights as compiled modules hold them: one PT-5 stream of all trits.
struct StreamSource {
  std::span<const std::uint8_t> bytes{};  // pt5_bytes(outputs * depth) of them
  std::uint64_t outputs{0};
  std::uint64_t depth{0};
  std::vector<double> scales{};  // one, or one an output
};

}  // namespace tfmbs::linear

#pragma GCC visibility pop
