#include <type_traits>

#include "operations.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::portable {
namespace {

// Every NaN is written as the type's one NaN: which payload survives an operation is left open by
// the language, and sets must agree to the bit.
template <typename Real>
void store(void* row, FloatType type, std::size_t n, Real value) noexcept {
  unsigned char* to = byte_offset(row, n * float_bytes(type));
  if (type == FloatType::kBFloat16 && std::is_same_v<Real, float>) {
    const std::uint16_t bits = bfloat16_from_float(static_cast<float>(value));
    std::memcpy(to, &bits, sizeof bits);
    return;
  }
  const std::uint64_t bits = round_to_format(static_cast<double>(value), format_of(type));
  if (type == FloatType::kFloat64) {
    std::memcpy(to, &bits, sizeof bits);
  } else if (type == FloatType::kFloat32) {
    const auto word = static_cast<std::uint32_t>(bits);
    std::memcpy(to, &word, sizeof word);
  } else {
    const auto half = static_cast<std::uint16_t>(bits);
    std::memcpy(to, &half, sizeof half);
  }
}

template <typename Real>
void epilogue_in(const EpilogueArgs& args) noexcept {
  for (std::size_t m = 0; m < args.rows; ++m) {
    const std::size_t row = m * args.accumulator_stride;
    void* out = byte_offset(args.out, m * args.out_stride * float_bytes(args.out_type));
    const Real row_scale =
        args.row_scales != nullptr ? static_cast<Real>(args.row_scales[m]) : Real{1};
    const bool nan_row = args.nan_rows != nullptr && args.nan_rows[m] != 0;
    for (std::size_t n = 0; n < args.outputs; ++n) {
      if (nan_row || (args.nan_outputs != nullptr && args.nan_outputs[n] != 0)) {
        store(out, args.out_type, n, static_cast<Real>(double_from_bits(kFloat64Format.nan)));
        continue;
      }
      const Real output_scale =
          args.output_scales != nullptr
              ? static_cast<Real>(args.output_scales[n * args.output_scale_step])
              : Real{1};
      const Real sum = args.scaled_accumulators != nullptr
                           ? static_cast<const Real*>(args.scaled_accumulators)[row + n]
                           : static_cast<Real>(args.accumulators[row + n]);
      Real value = sum * (row_scale * output_scale);
      if (args.bias != nullptr)
        value += static_cast<Real>(load_double(args.bias, args.bias_type, n));
      if (args.relu && value < 0) value = 0;
      store(out, args.out_type, n, value);
    }
  }
}

}  // namespace

void epilogue(const EpilogueArgs& args) noexcept {
  args.wide ? epilogue_in<double>(args) : epilogue_in<float>(args);
}

}  // namespace tfmbs::kernels::portable
