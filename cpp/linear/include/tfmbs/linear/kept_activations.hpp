// What a layer keeps of its input until the backward pass: the quantized values, which side of the
// straight-through window each value is on, or both. Rows of bytes, so that a tensor of uint8 holds
// them.
//   ternary, with values   kTritCodes values in kTritCodeBytes bytes, 2.33 bits each: trit and side
//   int8, with values      a byte each; a bit each for the side, if there is a window; the scale
//   without values         a bit each for the side
#pragma once

#include <cstddef>
#include <cstdint>

#include "tfmbs/kernels/kernels.hpp"
#include "tfmbs/linear/activation.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::linear {

class KeptLayout {
 public:
  // values: for the gradient of the weight. window: for the gradient of the input.
  KeptLayout(Activation activation, bool values, bool window, std::size_t depth) noexcept;

  [[nodiscard]] std::size_t row_bytes() const noexcept { return row_bytes_; }
  [[nodiscard]] std::size_t depth() const noexcept { return depth_; }
  [[nodiscard]] bool has_values() const noexcept { return values_; }
  [[nodiscard]] bool has_window() const noexcept { return window_; }
  // Trit and side in one code.
  [[nodiscard]] bool is_joint() const noexcept { return values_ && !by_values_; }
  [[nodiscard]] bool is_int8() const noexcept { return values_ && by_values_; }
  // Of a row: where its bits of the window begin, and its scale (a double, not aligned).
  [[nodiscard]] std::size_t bits_offset() const noexcept { return bits_offset_; }
  [[nodiscard]] std::size_t scale_offset() const noexcept { return scale_offset_; }

  static constexpr std::size_t kTritCodes = 24;
  static constexpr std::size_t kTritCodeBytes = 7;

 private:
  bool by_values_;
  bool values_;
  bool window_;
  std::size_t depth_;
  std::size_t bits_offset_{0};
  std::size_t scale_offset_{0};
  std::size_t row_bytes_{0};
};

// Rows of floats to be kept.
struct RowsToKeep {
  const void* input;  // contiguous
  kernels::FloatType type;
  std::size_t rows;
  // The window: a value is outside where |x| > clip, compared exactly. A NaN is inside.
  double clip;
};

// Writes rows.rows * layout.row_bytes() bytes. Throws std::bad_alloc.
void keep_rows(const KeptLayout& layout, const RowsToKeep& rows, std::uint8_t* out);

// Kept rows, borrowed.
struct KeptRows {
  const KeptLayout* layout;
  const std::uint8_t* bytes;
  std::size_t rows;
};

// Depths at which a part of a row may begin.
inline constexpr std::size_t kKeptStep = 24;

// Values times scale of one row, depths [first, first + count), to out. Precondition: the layout
// has values; first is a multiple of kKeptStep.
void dequantize_kept(const KeptRows& kept, std::size_t row, std::size_t first, std::size_t count,
                     float* out) noexcept;
void dequantize_kept(const KeptRows& kept, std::size_t row, std::size_t first, std::size_t count,
                     double* out) noexcept;
// Multiplies a row of the input's gradient by 1 inside the window and by 0 outside. Precondition:
// the layout has a window.
void apply_window(const KeptRows& kept, std::size_t row, float* gradient) noexcept;
void apply_window(const KeptRows& kept, std::size_t row, double* gradient) noexcept;

}  // namespace tfmbs::linear

#pragma GCC visibility pop
