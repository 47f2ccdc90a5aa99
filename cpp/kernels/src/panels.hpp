// What the matrix products of all instruction sets share: where a panel of weights stands
// (weight_panels.hpp), the block of activations that rows are staged in, and where sums go. For
// files with special flags: plain data in an anonymous namespace (docs/kernels.md, "One
// definition").
#pragma once

#include <cstddef>
#include <cstdint>

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::kernels {
namespace {

struct Panel {
  const std::uint8_t* bytes;
  std::size_t lines;  // of kPanelBytes a group
  std::size_t whole;  // bytes of one with all of its lines
};

// kGroup depths a group, kHeld outputs a line.
template <std::size_t kGroup, std::size_t kHeld>
Panel panel_of(const WeightPanelsView& weights, std::size_t p) {
  const std::size_t groups = (weights.depth + kGroup - 1) / kGroup;
  const std::size_t left = weights.outputs - p * kPanelOutputs;
  const std::size_t outputs = left < kPanelOutputs ? left : kPanelOutputs;
  const std::size_t whole = groups * (kPanelOutputs / kHeld) * kPanelBytes;
  return {weights.bytes + p * whole, (outputs + kHeld - 1) / kHeld, whole};
}

// The codes of kRows rows, a chunk of depths: what trit_matmul stages.
template <std::size_t kRows, std::size_t kCodes>
struct CodeBlock {
  alignas(64) std::uint8_t codes[kRows][kCodes];
};

// Rows of a chunk of depths, `stride` bytes apart and padded with zeros to whole groups: what
// int8_matmul stages. A weight goes in as t + 1, so a row's sum is subtracted in the end.
template <std::size_t kRows, std::size_t kBytes>
struct ValueBlock {
  alignas(64) std::int8_t values[kBytes];
  std::int32_t sums[kRows];
  std::size_t stride;
};

// Where a block of sums goes.
struct Output {
  std::int32_t* out;
  std::size_t stride;
  std::size_t left;  // outputs to write, from `out` on
  bool first;        // the first chunk writes, the others add
};

}  // namespace
}  // namespace tfmbs::kernels
