#include "tfmbs/linear/gradients.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>

#include "tfmbs/execution/workspace.hpp"

namespace tfmbs::linear {
namespace {

using execution::Executor;
using execution::Scratch;
using kernels::FloatType;

// Elements of a tile that is decoded for a product: 3 MiB of fp32, in the last-level cache until
// the product has read it.
constexpr std::size_t kTileElements = std::size_t{3} << 18;
// Rows of the input that a tile has at most, and columns at least: a product with fewer of either
// is slow.
constexpr std::size_t kTileRows = 512;
constexpr std::size_t kLeastColumns = 480;
static_assert(kLeastColumns % kKeptStep == 0);
// Elements of the weight's gradient that are masked while they are in a near cache.
constexpr std::size_t kMaskedElements = std::size_t{1} << 19;
// Work that is worth another thread.
constexpr std::size_t kGrainElements = std::size_t{1} << 16;

std::size_t grain_of(std::size_t columns) {
  return 1 + kGrainElements / std::max<std::size_t>(1, columns);
}

// --- trits to floats -----------------------------------------------------------------------------

// Four trits by their bits: the low four say which are not zero, the high four which are negative.
template <typename Float>
constexpr auto kFourTrits = [] {
  std::array<std::array<Float, 4>, 256> table{};
  for (std::size_t bits = 0; bits < table.size(); ++bits) {
    for (std::size_t i = 0; i < 4; ++i) {
      if ((bits >> i & 1) != 0) table[bits][i] = (bits >> (4 + i) & 1) != 0 ? -1 : 1;
    }
  }
  return table;
}();

template <typename Float>
void expand_planes(const std::uint64_t* row, std::size_t depth, Float* out) noexcept {
  for (std::size_t k = 0; k < depth; k += 64, out += 64) {
    const std::uint64_t* words = row + bit_plane_word(k);
    std::uint64_t nonzero = words[0];
    std::uint64_t negative = words[kPlaneWords];
    const std::size_t held = std::min<std::size_t>(64, depth - k);
    for (std::size_t i = 0; i < held; i += 4, nonzero >>= 4, negative >>= 4) {
      const auto& four = kFourTrits<Float>[(nonzero & 15) | (negative & 15) << 4];
      if (held - i >= 4) {
        std::memcpy(out + i, four.data(), sizeof four);
      } else {
        std::copy_n(four.data(), held - i, out + i);
      }
    }
  }
}

template <typename Float>
void scale_row(const TernaryWeights& weight, std::size_t row, Float* values) noexcept {
  const auto times = [&](std::size_t first, std::size_t count, Float scale) {
    for (std::size_t k = first; k < first + count; ++k) values[k] *= scale;
  };
  if (weight.groups.values != nullptr) {
    const GroupScalesView& groups = weight.groups;
    for (std::size_t g = 0; g < groups.groups(); ++g) {
      const std::size_t first = g * groups.group;
      times(first, std::min(groups.group, weight.depth - first),
            static_cast<Float>(groups.values[groups.index(row, g)]));
    }
  } else if (!weight.scales.empty()) {
    times(0, weight.depth, static_cast<Float>(weight.scales[weight.scales.size() == 1 ? 0 : row]));
  }
}

// Rows [first, first + count) times their scales, to count x depth floats.
template <typename Float>
void dequantize_rows(const TernaryWeights& weight, std::size_t first, std::size_t count,
                     Float* out) {
  const std::size_t depth = weight.depth;
  BitPlaneMatrix unpacked;
  const auto* panels = std::get_if<WeightPanelsView>(&weight.trits);
  if (panels != nullptr) unpacked = panel_rows(*panels, first, count);
  const auto* planes = std::get_if<BitPlaneView>(&weight.trits);
  const auto* trits = std::get_if<TritMatrix>(&weight.trits);
  for (std::size_t r = 0; r < count; ++r, out += depth) {
    if (trits != nullptr) {
      const std::int8_t* values = trits->values + (first + r) * depth;
      for (std::size_t k = 0; k < depth; ++k) out[k] = static_cast<Float>(values[k]);
    } else {
      expand_planes(planes != nullptr ? planes->row(first + r) : unpacked.row(r), depth, out);
    }
    scale_row(weight, first + r, out);
  }
}

// --- floats to the result's type -----------------------------------------------------------------

// A row of fp32 or fp64 rounded to `type`. In place where the types are the same.
template <typename Float>
void store_row(const Float* values, std::size_t count, FloatType type, void* out) noexcept {
  if (static_cast<const void*>(values) == out) return;
  kernels::active().epilogue({.accumulators = nullptr,
                              .rows = 1,
                              .outputs = count,
                              .accumulator_stride = count,
                              .row_scales = nullptr,
                              .output_scales = nullptr,
                              .output_scale_step = 0,
                              .bias = nullptr,
                              .bias_type = type,
                              .nan_rows = nullptr,
                              .nan_outputs = nullptr,
                              .out = out,
                              .out_type = type,
                              .out_stride = count,
                              .wide = sizeof(Float) == sizeof(double),
                              .scaled_accumulators = values});
}

bool is_half(FloatType type) noexcept {
  return type == FloatType::kBFloat16 || type == FloatType::kFloat16;
}

template <typename Pointer>
FloatMatrix<Pointer> part(const FloatMatrix<Pointer>& of, std::size_t row, std::size_t rows,
                          std::size_t column, std::size_t columns) noexcept {
  const std::size_t at = row * of.row_stride + column * of.column_stride;
  const std::size_t bytes = at * (of.wide ? sizeof(double) : sizeof(float));
  FloatMatrix<Pointer> made = of;
  if constexpr (std::is_const_v<std::remove_pointer_t<Pointer>>) {
    made.data = static_cast<const std::byte*>(of.data) + bytes;
  } else {
    made.data = static_cast<std::byte*>(of.data) + bytes;
  }
  made.rows = rows;
  made.columns = columns;
  return made;
}

FloatInput transposed(const FloatInput& of) noexcept {
  return {of.data, of.wide, of.columns, of.rows, of.column_stride, of.row_stride};
}

// --- the input's ---------------------------------------------------------------------------------

template <typename Float>
void input_gradient_as(const FloatInput& grad, const TernaryWeights& weight, const KeptRows* window,
                       void* out, FloatType type, const MatrixProduct& product,
                       const Executor& executor) {
  constexpr bool kWide = sizeof(Float) == sizeof(double);
  const std::size_t depth = weight.depth;
  const std::size_t row_bytes = depth * kernels::float_bytes(type);
  const bool masked = window != nullptr && window->layout->has_window();
  // Whole panels, and even tiles: a short last one would make its product slow.
  const std::size_t panels = (weight.outputs + kPanelOutputs - 1) / kPanelOutputs;
  const std::size_t most = std::max<std::size_t>(1, kTileElements / kPanelOutputs / depth);
  const std::size_t tiles = (panels + most - 1) / most;
  const std::size_t tile_rows =
      std::min(weight.outputs, (panels + tiles - 1) / tiles * kPanelOutputs);
  Scratch memory;
  const auto tile = memory.take<Float>(tile_rows * depth);
  // Sums in 16 bits would lose what each tile adds: they are made in fp32, some rows at a time.
  const bool half = is_half(type);
  const std::size_t step = half ? std::min(kTileRows, grad.rows) : grad.rows;
  const auto sums = memory.take<Float>(half ? step * depth : 0);
  for (std::size_t row = 0; row < grad.rows; row += step) {
    const std::size_t rows = std::min(step, grad.rows - row);
    auto* const to = static_cast<std::byte*>(out) + row * row_bytes;
    Float* const made = half ? sums.data() : reinterpret_cast<Float*>(to);
    for (std::size_t first = 0; first < weight.outputs; first += tile_rows) {
      const std::size_t count = std::min(tile_rows, weight.outputs - first);
      executor.parallel_for(
          (count + kPanelOutputs - 1) / kPanelOutputs, grain_of(kPanelOutputs * depth),
          [&](std::size_t begin, std::size_t end) {
            for (std::size_t p = begin; p < end; ++p) {
              const std::size_t at = p * kPanelOutputs;
              dequantize_rows(weight, first + at, std::min(kPanelOutputs, count - at),
                              tile.data() + at * depth);
            }
          });
      product.multiply(part(grad, row, rows, first, count),
                       {tile.data(), kWide, count, depth, depth}, {made, kWide, rows, depth, depth},
                       first != 0);
    }
    if (!masked && !half) continue;
    executor.parallel_for(rows, grain_of(depth), [&](std::size_t begin, std::size_t end) {
      for (std::size_t r = begin; r < end; ++r) {
        Float* const values = made + r * depth;
        if (masked) apply_window(*window, row + r, values);
        store_row(values, depth, type, to + r * row_bytes);
      }
    });
  }
}

// --- the weight's --------------------------------------------------------------------------------

// Magnitudes of an IEEE 754 format as integers, which order as the values do.
template <typename Bits>
struct Magnitudes {
  Bits mask;      // of the magnitude's bits
  Bits one;       // kWeightWindow
  Bits infinity;  // above it: NaN, which is inside
};
static_assert(kWeightWindow == 1.0);

template <typename Bits>
bool any_outside(const Bits* weights, std::size_t count, Magnitudes<Bits> of) noexcept {
  Bits found = 0;
  for (std::size_t k = 0; k < count; ++k) {
    const auto size = static_cast<Bits>(weights[k] & of.mask);
    found = static_cast<Bits>(found | (size > of.one ? 1 : 0));
  }
  return found != 0;
}

template <typename Bits, typename Float>
void mask_row(const void* row, std::size_t first, std::size_t count, Magnitudes<Bits> of,
              Float* values) noexcept {
  const Bits* weights = static_cast<const Bits*>(row) + first;
  if (!any_outside(weights, count, of)) return;
  for (std::size_t k = 0; k < count; ++k) {
    const auto size = static_cast<Bits>(weights[k] & of.mask);
    values[k] *= size > of.one && size <= of.infinity ? Float{0} : Float{1};
  }
}

template <typename Float>
void apply_weight_window(const FloatWeights& weight, std::size_t row, std::size_t first,
                         std::size_t count, Float* values) noexcept {
  const void* from = static_cast<const std::byte*>(weight.data) +
                     row * weight.depth * kernels::float_bytes(weight.type);
  switch (weight.type) {
    case FloatType::kFloat64:
      return mask_row<std::int64_t>(
          from, first, count, {0x7FFFFFFFFFFFFFFF, 0x3FF0000000000000, 0x7FF0000000000000}, values);
    case FloatType::kFloat32:
      return mask_row<std::int32_t>(from, first, count, {0x7FFFFFFF, 0x3F800000, 0x7F800000},
                                    values);
    case FloatType::kBFloat16:
      return mask_row<std::int16_t>(from, first, count, {0x7FFF, 0x3F80, 0x7F80}, values);
    case FloatType::kFloat16:
      return mask_row<std::int16_t>(from, first, count, {0x7FFF, 0x3C00, 0x7C00}, values);
  }
}

template <typename Float>
void weight_gradient_as(const FloatInput& grad, const KeptRows& input, const FloatWeights& weight,
                        void* out, const MatrixProduct& product, const Executor& executor) {
  constexpr bool kWide = sizeof(Float) == sizeof(double);
  const std::size_t samples = grad.rows;
  const std::size_t depth = weight.depth;
  const std::size_t value_bytes = kernels::float_bytes(weight.type);
  const bool half = is_half(weight.type);
  const std::size_t most_rows = std::min(samples, kTileRows);
  const std::size_t most_columns =
      std::min(depth, std::max(kLeastColumns, kTileElements / most_rows / kKeptStep * kKeptStep));
  const std::size_t step = std::min<std::size_t>(
      weight.outputs, std::max<std::size_t>(64, kMaskedElements / most_columns));
  Scratch memory;
  const auto tile = memory.take<Float>(most_rows * most_columns);
  const auto sums = memory.take<Float>(half ? step * most_columns : 0);
  for (std::size_t column = 0; column < depth; column += most_columns) {
    const std::size_t columns = std::min(most_columns, depth - column);
    for (std::size_t first = 0; first < weight.outputs; first += step) {
      const std::size_t count = std::min(step, weight.outputs - first);
      auto* const to = static_cast<std::byte*>(out) + (first * depth + column) * value_bytes;
      const FloatOutput made{half ? static_cast<void*>(sums.data()) : to, kWide, count, columns,
                             half ? columns : depth};
      for (std::size_t row = 0; row < samples; row += most_rows) {
        const std::size_t rows = std::min(most_rows, samples - row);
        if (first == 0 || samples > most_rows) {  // else the tile is there already
          executor.parallel_for(rows, grain_of(columns), [&](std::size_t begin, std::size_t end) {
            for (std::size_t r = begin; r < end; ++r) {
              dequantize_kept(input, row + r, column, columns, tile.data() + r * columns);
            }
          });
        }
        product.multiply(transposed(part(grad, row, rows, first, count)),
                         {tile.data(), kWide, rows, columns, columns}, made, row != 0);
      }
      executor.parallel_for(count, grain_of(columns), [&](std::size_t begin, std::size_t end) {
        for (std::size_t r = begin; r < end; ++r) {
          Float* const values = static_cast<Float*>(made.data) + r * made.row_stride;
          if (weight.data != nullptr) {
            apply_weight_window(weight, first + r, column, columns, values);
          }
          store_row(values, columns, weight.type, to + r * depth * value_bytes);
        }
      });
    }
  }
}

void clear(void* out, std::size_t elements, FloatType type) noexcept {
  if (elements != 0) std::memset(out, 0, elements * kernels::float_bytes(type));
}

}  // namespace

void input_gradient(const FloatInput& grad, const TernaryWeights& weight, const KeptRows* window,
                    void* out, FloatType type, const MatrixProduct& product,
                    const Executor& executor) {
  if (grad.rows == 0 || weight.outputs == 0 || weight.depth == 0) {
    return clear(out, grad.rows * weight.depth, type);
  }
  if (grad.wide) {
    input_gradient_as<double>(grad, weight, window, out, type, product, executor);
  } else {
    input_gradient_as<float>(grad, weight, window, out, type, product, executor);
  }
}

void weight_gradient(const FloatInput& grad, const KeptRows& input, const FloatWeights& weight,
                     void* out, const MatrixProduct& product, const Executor& executor) {
  if (grad.rows == 0 || weight.outputs == 0 || weight.depth == 0) {
    return clear(out, weight.outputs * weight.depth, weight.type);
  }
  if (grad.wide) {
    weight_gradient_as<double>(grad, input, weight, out, product, executor);
  } else {
    weight_gradient_as<float>(grad, input, weight, out, product, executor);
  }
}

}  // namespace tfmbs::linear
