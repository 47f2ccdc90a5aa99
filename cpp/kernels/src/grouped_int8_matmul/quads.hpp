// Grouped int8 x trit over quads: how rows, depths and panels are cut. As int8_matmul/quads.hpp,
// with chunks of whole groups. Everything is in an anonymous namespace (docs/kernels.md, "One
// definition").
#pragma once

#include <cstddef>
#include <cstdint>

#include "grouped_sums.hpp"
#include "int8_matmul/quads.hpp"
#include "operations.hpp"

namespace tfmbs::kernels {
namespace {

constexpr std::size_t kUnit = 16;  // depths that a line of 64 bytes holds
static_assert(kUnit == kGroup && kLeastScaleGroup % kUnit == 0);

// Rows of a chunk of depths, padded with zeros to whole units, and what a set wants to know of each
// group: of row m and group g, sums[m * groups + g].
struct GroupedActivations {
  alignas(64) std::int8_t values[kBlockBytes];
  std::int32_t sums[kBlockBytes / kLeastScaleGroup];
  std::size_t stride;
  std::size_t groups;
};

// Some rows of a block times some groups of a panel.
struct GroupedTask {
  const GroupedActivations* from;
  std::size_t row;
  std::size_t rows;
  const std::uint8_t* panel;
  std::size_t lines;        // of the panel
  std::size_t step;         // bytes from a unit to the next
  std::size_t units;        // of all groups
  std::size_t group_units;  // of each group but the last
  const float* scales;      // kGroupScales a group
  ScaledOutput to;
};

// product(task) and stage(args, row, rows, first, depths, block) are as those of quads().
template <typename Stage, typename Product>
inline void grouped_quads(const GroupedInt8MatmulArgs& args, std::size_t max_rows, Stage stage,
                          Product product) {
  const WeightPanelsView& weights = args.weights;
  const std::size_t group = args.scales.group;
  GroupedActivations block;
  for (std::size_t row = 0; row < args.rows; row += kBlockRows) {
    const std::size_t rows = args.rows - row < kBlockRows ? args.rows - row : kBlockRows;
    // Chunks of even depths; without depths there is still a zero to write.
    const std::size_t most = kBlockBytes / rows / group * group;
    const std::size_t depth = weights.depth > 0 ? weights.depth : 1;
    const std::size_t chunks = (depth + most - 1) / most;
    const std::size_t chunk = ((depth + chunks - 1) / chunks + group - 1) / group * group;
    for (std::size_t first = 0; first < depth; first += chunk) {
      const std::size_t left = weights.depth - first;
      const std::size_t depths = left < chunk ? left : chunk;
      const std::size_t units = (depths + kUnit - 1) / kUnit;
      block.stride = units * kUnit;
      block.groups = (depths + group - 1) / group;
      stage(args, row, rows, first, depths, block);
      for (std::size_t n = 0; n < args.outputs; n += kPanelOutputs) {
        const std::size_t p = (args.first_output + n) / kPanelOutputs;
        const Panel panel = panel_of<kUnit, kLineOutputs>(weights, p);
        const std::size_t step = panel.lines * kPanelBytes;
        for (std::size_t m = 0; m < rows; m += max_rows) {
          product(GroupedTask{
              .from = &block,
              .row = m,
              .rows = rows - m < max_rows ? rows - m : max_rows,
              .panel = panel.bytes + first / kUnit * step,
              .lines = panel.lines,
              .step = step,
              .units = units,
              .group_units = group / kUnit,
              .scales = scales_of(args.scales, p, first / group),
              .to = {.out = static_cast<float*>(args.out) + (row + m) * args.out_stride + n,
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
