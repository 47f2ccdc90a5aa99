// Where a panel of weights stands (weight_panels.hpp), for files with special instruction-set
// flags: everything is in an anonymous namespace (docs/kernels.md, "One definition").
#pragma once

#include <cstddef>
#include <cstdint>

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::kernels {
namespace {

struct Panel {
  const std::uint8_t* bytes;
  std::size_t lines;    // of kPanelBytes a group
  std::size_t outputs;  // that the layer has in it
};

// kGroup depths a group, kHeld outputs a line.
template <std::size_t kGroup, std::size_t kHeld>
Panel panel_of(const WeightPanelsView& weights, std::size_t p) {
  const std::size_t groups = (weights.depth + kGroup - 1) / kGroup;
  const std::size_t left = weights.outputs - p * kPanelOutputs;
  const std::size_t outputs = left < kPanelOutputs ? left : kPanelOutputs;
  return {weights.bytes + p * groups * (kPanelOutputs / kHeld) * kPanelBytes,
          (outputs + kHeld - 1) / kHeld, outputs};
}

}  // namespace
}  // namespace tfmbs::kernels
