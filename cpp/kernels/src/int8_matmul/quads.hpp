// int8 x trit over quads as the sets of x86 without AVX-512 and those of ARM do it: how rows,
// depths and panels are cut. Everything is in an anonymous namespace (docs/kernels.md, "One
// definition").
#pragma once

#include <cstddef>
#include <cstdint>

#include "operations.hpp"
#include "panels.hpp"

namespace tfmbs::kernels {
namespace {

constexpr std::size_t kLineOutputs = 16;
constexpr std::size_t kGroup = 16;      // depths
constexpr std::size_t kBlockRows = 64;  // that share a block of activations
constexpr std::size_t kBlockBytes = std::size_t{1} << 16;
constexpr std::size_t kMaxGroups = kBlockBytes / kGroup;

using Activations = ValueBlock<kBlockRows, kBlockBytes>;

// Some rows of a block times some groups of a panel.
struct Task {
  const Activations* from;
  std::size_t row;
  std::size_t rows;
  const std::uint8_t* panel;
  std::size_t lines;  // of the panel
  std::size_t step;   // bytes from a group to the next
  std::size_t groups;
  Output to;
};

// A chunk of a panel's depths stays in the nearest cache while every row of a block passes over it,
// at most max_rows at a time. product(task) does that; stage(args, row, rows, first, depths, block)
// copies the block's rows.
template <typename Stage, typename Product>
inline void quads(const Int8MatmulArgs& args, std::size_t max_rows, Stage stage, Product product) {
  const WeightPanelsView& weights = args.weights;
  Activations block;
  for (std::size_t row = 0; row < args.rows; row += kBlockRows) {
    const std::size_t rows = args.rows - row < kBlockRows ? args.rows - row : kBlockRows;
    // Chunks of even depths; without depths there is still a zero to write.
    const std::size_t most = kBlockBytes / rows / kGroup * kGroup;
    const std::size_t depth = weights.depth > 0 ? weights.depth : 1;
    const std::size_t chunks = (depth + most - 1) / most;
    const std::size_t chunk = ((depth + chunks - 1) / chunks + kGroup - 1) / kGroup * kGroup;
    for (std::size_t first = 0; first < depth; first += chunk) {
      const std::size_t left = weights.depth - first;
      const std::size_t depths = left < chunk ? left : chunk;
      const std::size_t groups = (depths + kGroup - 1) / kGroup;
      block.stride = groups * kGroup;
      stage(args, row, rows, first, depths, block);
      for (std::size_t n = 0; n < args.outputs; n += kPanelOutputs) {
        const Panel panel =
            panel_of<kGroup, kLineOutputs>(weights, (args.first_output + n) / kPanelOutputs);
        const std::size_t step = panel.lines * kPanelBytes;
        const std::uint8_t* bytes = panel.bytes + first / kGroup * step;
        for (std::size_t m = 0; m < rows; m += max_rows) {
          product(Task{.from = &block,
                       .row = m,
                       .rows = rows - m < max_rows ? rows - m : max_rows,
                       .panel = bytes,
                       .lines = panel.lines,
                       .step = step,
                       .groups = groups,
                       .to = {.out = args.out + (row + m) * args.out_stride + n,
                              .stride = args.out_stride,
                              .left = args.outputs - n,
                              .first = first == 0}});
        }
      }
    }
  }
}

}  // namespace
}  // namespace tfmbs::kernels
