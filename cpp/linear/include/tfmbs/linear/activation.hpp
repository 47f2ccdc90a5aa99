// Activation modes: how a layer quantizes its input. One table (activation.cpp) has a row a mode;
// everything else reads the row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "tfmbs/format/activations.hpp"
#include "tfmbs/format/error.hpp"
#include "tfmbs/kernels/kernels.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::linear {

enum class Activation : std::uint8_t { kTernary, kInt8 };

// Rows of floats to be quantized.
struct RowsToQuantize {
  const void* input;  // the first row
  kernels::FloatType type;
  std::size_t rows;
  std::size_t columns;
  std::size_t row_stride;    // in elements
  void* out;                 // ActivationMode::row_bytes(columns) a row
  std::uint64_t* planes;     // all trit planes as well (the device's stepped engine), or null
  std::size_t plane_stride;  // in words
  double* scales;            // one a row; not read where the mode has none
  std::uint8_t* nan_rows;    // one a row
  const double* magnitudes;  // LinearArgs::magnitudes from the first row on, or null
};

// A product of quantized rows and packed weights.
struct RowsToMultiply {
  const void* activations;  // the first row, as quantize() left it
  std::size_t rows;
  std::size_t row_stride;  // in elements; used by modes of one byte a value
  WeightPanelsView weights;
  std::size_t first_output;  // a multiple of kPanelOutputs
  std::size_t outputs;
  std::int32_t* out;
  std::size_t out_stride;
  std::byte* scratch;  // scratch_use() bytes, or null
};

// The same for weights with group scales.
struct RowsToMultiplyGrouped {
  const void* activations;
  std::size_t rows;
  std::size_t row_stride;
  WeightPanelsView weights;
  GroupScalesView scales;
  std::size_t first_output;
  std::size_t outputs;
  void* out;  // fp32, or fp64 where `wide`
  std::size_t out_stride;
  bool wide;
};

// A row of the table. Pointers to functions call the active ISA variant.
struct ActivationMode {
  Activation id;
  std::string_view name;         // in every interface: "ternary", "int8"
  std::uint32_t planes;          // trit planes that the fabric runs it as
  bool by_values;                // quantized rows are int8 values; else bit planes
  bool has_scales;               // one scale a row; else 1
  std::optional<double> window;  // the straight-through window of the input gradient, by default
  std::size_t (*row_bytes)(std::size_t columns) noexcept;
  const kernels::PreferredLayouts& (*layouts)() noexcept;
  kernels::ScratchUse (*scratch_use)() noexcept;
  void (*quantize)(const RowsToQuantize&) noexcept;
  void (*multiply)(const RowsToMultiply&) noexcept;
  void (*multiply_grouped)(const RowsToMultiplyGrouped&) noexcept;
};

[[nodiscard]] std::span<const ActivationMode> activation_modes() noexcept;
[[nodiscard]] const ActivationMode& mode_of(Activation activation) noexcept;
[[nodiscard]] inline std::string_view name_of(Activation activation) noexcept {
  return mode_of(activation).name;
}
// Errors: kInvalidArgument, with the names that are allowed.
Result<Activation> parse_activation(std::string_view text);

}  // namespace tfmbs::linear

#pragma GCC visibility pop
