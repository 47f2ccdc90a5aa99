#include "tfmbs/linear/activation.hpp"

#include <string>

namespace tfmbs::linear {
namespace {

// --- ternary: the sign of a value, one trit ---------------------------------------------------

std::size_t ternary_row_bytes(std::size_t columns) noexcept {
  return bit_plane_blocks(columns) * kBlockWords * sizeof(std::uint64_t);
}
const kernels::PreferredLayouts& ternary_layouts() noexcept {
  return kernels::active().trit_layouts;
}
kernels::ScratchUse no_scratch() noexcept { return {}; }
void quantize_ternary(const RowsToQuantize& rows) noexcept {
  kernels::active().ternarize({.input = rows.input,
                               .type = rows.type,
                               .rows = rows.rows,
                               .columns = rows.columns,
                               .row_stride = rows.row_stride,
                               .thresholds = nullptr,
                               .planes = static_cast<std::uint64_t*>(rows.out),
                               .nan_rows = rows.nan_rows});
}
void multiply_ternary(const RowsToMultiply& rows) noexcept {
  kernels::active().trit_matmul({.activations = static_cast<const std::uint64_t*>(rows.activations),
                                 .rows = rows.rows,
                                 .weights = rows.weights,
                                 .first_output = rows.first_output,
                                 .outputs = rows.outputs,
                                 .out = rows.out,
                                 .out_stride = rows.out_stride});
}

void multiply_ternary_grouped(const RowsToMultiplyGrouped& rows) noexcept {
  kernels::active().grouped_trit_matmul(
      {.activations = static_cast<const std::uint64_t*>(rows.activations),
       .rows = rows.rows,
       .weights = rows.weights,
       .scales = rows.scales,
       .first_output = rows.first_output,
       .outputs = rows.outputs,
       .out = rows.out,
       .out_stride = rows.out_stride,
       .wide = rows.wide});
}

// --- int8: a row's absolute maximum becomes 127, six trit planes ------------------------------

std::size_t int8_row_bytes(std::size_t columns) noexcept { return columns; }
const kernels::PreferredLayouts& int8_layouts() noexcept { return kernels::active().int8_layouts; }
kernels::ScratchUse int8_scratch() noexcept { return kernels::active().int8_scratch; }
void quantize_int8(const RowsToQuantize& rows) noexcept {
  kernels::active().quantize_int8({.input = rows.input,
                                   .type = rows.type,
                                   .rows = rows.rows,
                                   .columns = rows.columns,
                                   .row_stride = rows.row_stride,
                                   .planes = rows.planes,
                                   .plane_stride = rows.plane_stride,
                                   .values = static_cast<std::int8_t*>(rows.out),
                                   .scales = rows.scales,
                                   .nan_rows = rows.nan_rows,
                                   .magnitudes = rows.magnitudes});
}
void multiply_int8(const RowsToMultiply& rows) noexcept {
  kernels::active().int8_matmul({.activations = static_cast<const std::int8_t*>(rows.activations),
                                 .rows = rows.rows,
                                 .row_stride = rows.row_stride,
                                 .weights = rows.weights,
                                 .first_output = rows.first_output,
                                 .outputs = rows.outputs,
                                 .out = rows.out,
                                 .out_stride = rows.out_stride,
                                 .scratch = rows.scratch});
}

void multiply_int8_grouped(const RowsToMultiplyGrouped& rows) noexcept {
  kernels::active().grouped_int8_matmul(
      {.activations = static_cast<const std::int8_t*>(rows.activations),
       .rows = rows.rows,
       .row_stride = rows.row_stride,
       .weights = rows.weights,
       .scales = rows.scales,
       .first_output = rows.first_output,
       .outputs = rows.outputs,
       .out = rows.out,
       .out_stride = rows.out_stride,
       .wide = rows.wide});
}

// In the order of the enumeration, which is also the C interface's.
constexpr ActivationMode kModes[] = {
    {.id = Activation::kTernary,
     .name = "ternary",
     .planes = 1,
     .by_values = false,
     .has_scales = false,
     .window = 1.0,
     .row_bytes = ternary_row_bytes,
     .layouts = ternary_layouts,
     .scratch_use = no_scratch,
     .quantize = quantize_ternary,
     .multiply = multiply_ternary,
     .multiply_grouped = multiply_ternary_grouped},
    {.id = Activation::kInt8,
     .name = "int8",
     .planes = static_cast<std::uint32_t>(kernels::kInt8Planes),
     .by_values = true,
     .has_scales = true,
     .window = std::nullopt,
     .row_bytes = int8_row_bytes,
     .layouts = int8_layouts,
     .scratch_use = int8_scratch,
     .quantize = quantize_int8,
     .multiply = multiply_int8,
     .multiply_grouped = multiply_int8_grouped},
};
static_assert(kModes[0].id == Activation::kTernary && kModes[1].id == Activation::kInt8);

}  // namespace

std::span<const ActivationMode> activation_modes() noexcept { return kModes; }

const ActivationMode& mode_of(Activation activation) noexcept {
  return kModes[static_cast<std::size_t>(activation)];
}

Result<Activation> parse_activation(std::string_view text) {
  std::string allowed;
  for (const ActivationMode& mode : kModes) {
    if (mode.name == text) return mode.id;
    allowed += (allowed.empty() ? "'" : ", '") + std::string(mode.name) + "'";
  }
  return Error{ErrorCode::kInvalidArgument,
               "activation is '" + std::string(text) + "'; allowed are " + allowed};
}

}  // namespace tfmbs::linear
