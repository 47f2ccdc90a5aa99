// vpdpbusd multiplies unsigned by signed bytes: a weight goes in as its code t + 1 in 0, 1, 2, and
// the row's sum of activations is subtracted in the end. Sums wrap modulo 2^32, the result fits.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "int8_matmul/avx512_codes.hpp"
#include "int8_matmul/avx512_dot_lookup.hpp"
#include "int8_matmul/avx512_panel_product.hpp"
#include "int8_matmul/avx512_staging.hpp"
#include "operations.hpp"
#include "panels.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr std::size_t kQuadRows = 32;  // of a block where nothing is decoded
// A panel's chunk of decoded fives is 15 KiB, half of the first cache.
constexpr std::size_t kDecodedUnits = 12;

// A chunk of a panel's depths stays in the nearest caches while every row of a block passes over
// it: fives that are decoded in the first, quads of 32 rows, 32 KB, in the second, which keeps up.
template <typename Codes>
void product(const Int8MatmulArgs& args) {
  const WeightPanelsView& weights = args.weights;
  Activations block;
  alignas(64) std::uint8_t
      decoded[Codes::kFive ? kDecodedUnits * kFiveUnitQuads * kPanelLines * kPanelBytes : 1];
  constexpr std::size_t kMostRows = Codes::kFive ? kBlockRows : kQuadRows;
  for (std::size_t row = 0; row < args.rows; row += kMostRows) {
    const std::size_t rows = args.rows - row < kMostRows ? args.rows - row : kMostRows;
    // Chunks of even depths; without depths there is still a zero to write.
    const bool decode = Codes::kFive && rows > kMaxRows;
    const std::size_t room = kBlockBytes / rows / kFiveUnitDepths;
    const std::size_t most =
        (decode && kDecodedUnits < room ? kDecodedUnits : room) * kFiveUnitDepths;
    const std::size_t depth = weights.depth > 0 ? weights.depth : 1;
    const std::size_t chunks = (depth + most - 1) / most;
    const std::size_t chunk =
        ((depth + chunks - 1) / chunks + kFiveUnitDepths - 1) / kFiveUnitDepths * kFiveUnitDepths;
    for (std::size_t first = 0; first < depth; first += chunk) {
      const std::size_t left = weights.depth - first;
      const std::size_t depths = left < chunk ? left : chunk;
      const std::size_t groups = (depths + Codes::kGroup - 1) / Codes::kGroup;
      const std::size_t units = (depths + kFiveUnitDepths - 1) / kFiveUnitDepths;
      if (decode) {
        block.stride = units * kFiveUnitDepths;
        stage_units(args, row, rows, first, depths, block);
      } else {
        block.stride = groups * Codes::kGroup;
        stage(args, row, rows, first, depths, block);
      }
      for (std::size_t n = 0; n < args.outputs; n += kPanelOutputs) {
        const std::size_t held = args.outputs - n;
        const Panel panel =
            panel_of<Codes::kGroup, kLineOutputs>(weights, (args.first_output + n) / kPanelOutputs);
        const std::uint8_t* bytes = panel.bytes + first / Codes::kGroup * panel.lines * kPanelBytes;
        if (decode) decode_fives(bytes, panel.lines, groups, panel.whole, decoded);
        for (std::size_t m = 0; m < rows; m += kMaxRows) {
          const std::size_t count = rows - m < kMaxRows ? rows - m : kMaxRows;
          const Output to{.out = args.out + (row + m) * args.out_stride + n,
                          .stride = args.out_stride,
                          .left = held,
                          .first = first == 0};
          if (decode) {
            panel_product<Quads>(block, m, count, decoded, panel.lines,
                                 block.stride / Quads::kGroup, to);
          } else {
            panel_product<Codes>(block, m, count, bytes, panel.lines, groups, to);
          }
        }
      }
    }
  }
}

// A chunk of a panel, as quads whose groups are whole units: in place where it has that form, else
// in `own`, padded with zeros.
template <typename Codes>
const std::uint8_t* unit_lines(const Panel& panel, std::size_t first, std::size_t groups,
                               std::size_t quads, std::size_t units, std::uint8_t* own) {
  const std::size_t step = panel.lines * kPanelBytes;
  const std::uint8_t* lines = panel.bytes + first / Codes::kGroup * step;
  if constexpr (Codes::kFive) {
    decode_fives(lines, panel.lines, groups, panel.whole, own);
  } else {
    if (quads == units * kUnitGroups && panel.lines % kTileLines == 0) return lines;
    __builtin_memcpy(own, lines, quads * step);
  }
  __builtin_memset(own + quads * step, 0, (units * kUnitGroups - quads) * step);
  return own;
}

// At most kDotLookupRows rows: tiles of eight look up, what is left are dot products alone. A chunk
// of a panel's depths stays in the first cache while the rows pass over it, their tables in the
// second.
template <typename Codes>
void dot_lookup_product(const Int8MatmulArgs& args, DotLookupScratch& scratch) {
  constexpr std::size_t kStep = Codes::kFive ? kFiveUnitDepths * kUnitGroups : kUnitDepths;
  constexpr std::size_t kMost = kMostUnits * kUnitDepths;
  static_assert(kStep % kUnitDepths == 0 && kStep % Codes::kGroup == 0 && kMost % kStep == 0);
  static_assert(kDotLookupRows * kMost <= kBlockBytes);
  const WeightPanelsView& weights = args.weights;
  Activations block;
  const std::size_t tiled = args.rows / kTileRows * kTileRows;
  const std::size_t chunks = (weights.depth + kMost - 1) / kMost;
  const std::size_t chunk = ((weights.depth + chunks - 1) / chunks + kStep - 1) / kStep * kStep;
  for (std::size_t first = 0; first < weights.depth; first += chunk) {
    const std::size_t left = weights.depth - first;
    const std::size_t depths = left < chunk ? left : chunk;
    const std::size_t groups = (depths + Codes::kGroup - 1) / Codes::kGroup;
    const std::size_t five_units = (depths + kFiveUnitDepths - 1) / kFiveUnitDepths;
    const std::size_t quads = Codes::kFive ? five_units * kFiveUnitQuads : groups;
    const std::size_t units = (quads + kUnitGroups - 1) / kUnitGroups;
    block.stride = units * kUnitDepths;
    if constexpr (Codes::kFive) {
      stage_units(args, 0, args.rows, first, depths, block);
    } else {
      stage(args, 0, args.rows, first, depths, block);
    }
    for (std::size_t m = 0; m < tiled; ++m) {
      stage_dot_lookup_row(block.values + m * block.stride, units, block.sums[m], m,
                           scratch.activations);
    }
    for (std::size_t n = 0; n < args.outputs; n += kPanelOutputs) {
      const Panel panel =
          panel_of<Codes::kGroup, kLineOutputs>(weights, (args.first_output + n) / kPanelOutputs);
      const std::uint8_t* lines =
          unit_lines<Codes>(panel, first, groups, quads, units, scratch.panel.lines);
      index_panel(lines, panel.lines, units, scratch.panel);
      Output to{.out = args.out + n,
                .stride = args.out_stride,
                .left = args.outputs - n,
                .first = first == 0};
      for (std::size_t m = 0; m < tiled; m += kTileRows, to.out += kTileRows * to.stride) {
        for (std::size_t h = 0; h * kTileLines < panel.lines; ++h) {
          if (h * kTileOutputs >= to.left) break;
          dot_lookup_tile(scratch.activations, m / kTileRows, lines, panel.lines, scratch.panel, h,
                          units, to);
        }
      }
      if (tiled < args.rows) {
        panel_product<Quads>(block, tiled, args.rows - tiled, lines, panel.lines,
                             units * kUnitGroups, to);
      }
    }
  }
}

static_assert(sizeof(DotLookupScratch) == kInt8Scratch.bytes &&
              alignof(DotLookupScratch) <= kScratchAlignment);
static_assert(kInt8Scratch.least_rows >= kTileRows);

template <typename Codes>
void product_of_blocks(const Int8MatmulArgs& args) {
  Int8MatmulArgs rest = args;
  // Not by ScratchUse::serves: docs/kernels.md, "One definition".
  if (args.scratch != nullptr && args.outputs >= kInt8Scratch.least_outputs &&
      args.weights.depth > 0) {
    auto& scratch = *reinterpret_cast<DotLookupScratch*>(args.scratch);
    while (rest.rows >= kInt8Scratch.least_rows) {
      Int8MatmulArgs block = rest;
      if (block.rows > kDotLookupRows) block.rows = kDotLookupRows;
      dot_lookup_product<Codes>(block, scratch);
      rest.activations += block.rows * rest.row_stride;
      rest.out += block.rows * rest.out_stride;
      rest.rows -= block.rows;
    }
  }
  product<Codes>(rest);
}

}  // namespace

void int8_matmul(const Int8MatmulArgs& args) noexcept {
  if (args.weights.layout == WeightLayout::kInt8Fives) {
    product_of_blocks<Fives>(args);
  } else {
    product_of_blocks<Quads>(args);
  }
}

}  // namespace tfmbs::kernels::avx512
