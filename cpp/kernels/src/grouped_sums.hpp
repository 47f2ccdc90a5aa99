// Where the grouped products of all instruction sets put their sums. For files with special flags:
// plain data in an anonymous namespace (docs/kernels.md, "One definition").
#pragma once

#include <cstddef>

#include "panels.hpp"

namespace tfmbs::kernels {
namespace {

// Scales of a group of a panel: the next group's stand behind them.
constexpr std::size_t kGroupScales = kPanelOutputs;

// Where a block of scaled sums goes. They are read, unless they begin at 0, and written back.
struct ScaledOutput {
  float* out;
  std::size_t stride;
  std::size_t left;  // outputs to write, from `out` on
  bool first;        // the first chunk begins at +0
};

// The scales of panel p from group g on.
inline const float* scales_of(const GroupScalesView& scales, std::size_t p, std::size_t g) {
  const std::size_t groups = (scales.depth + scales.group - 1) / scales.group;
  return scales.values + (p * groups + g) * kGroupScales;
}

}  // namespace
}  // namespace tfmbs::kernels
