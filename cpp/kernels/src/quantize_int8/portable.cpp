#include <cmath>
#include <limits>
#include <type_traits>

#include "operations.hpp"
#include "quantize_int8/balanced_trits.hpp"
#include "quantize_int8/row_scale.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::portable {
namespace {

constexpr TritTable<128> kTrits;

template <FloatType kType>
void quantize_as(const QuantizeInt8Args& args) noexcept {
  using Real = std::conditional_t<kType == FloatType::kFloat64, double, float>;
  const auto load = [](const void* row, std::size_t k) {
    return static_cast<Real>(load_double(row, kType, k));
  };
  const std::size_t row_words = blocks_of(args.columns) * kBlockWords;
  for (std::size_t r = 0; r < args.rows; ++r) {
    const void* row = byte_offset(args.input, r * args.row_stride * float_bytes(kType));
    Real largest = 0;
    bool finite = true;
    for (std::size_t k = 0; k < args.columns; ++k) {
      const Real magnitude = std::fabs(load(row, k));
      finite = finite && magnitude <= std::numeric_limits<Real>::max();  // false for a NaN
      largest = magnitude > largest ? magnitude : largest;
    }
    if (args.magnitudes != nullptr) {
      const Real magnitude = std::fabs(static_cast<Real>(args.magnitudes[r]));
      finite = finite && magnitude <= std::numeric_limits<Real>::max();
      largest = magnitude > largest ? magnitude : largest;
    }
    const RowScale scale = row_scale(largest);
    const Real inverse = static_cast<Real>(scale.inverse);
    args.scales[r] = finite ? scale.scale : 1.0;
    args.nan_rows[r] = finite ? 0 : 1;

    for (std::size_t p = 0; args.planes != nullptr && p < kInt8Planes; ++p) {
      std::memset(args.planes + p * args.plane_stride + r * row_words, 0, row_words * 8);
    }
    for (std::size_t k = 0; k < args.columns; ++k) {
      int value = 0;
      if (finite) {
        value = static_cast<int>(std::nearbyint(load(row, k) * inverse));
        value = value > 127 ? 127 : value < -127 ? -127 : value;
      }
      if (args.values != nullptr) {
        args.values[r * args.columns + k] = static_cast<std::int8_t>(value);
      }
      if (args.planes == nullptr) continue;
      const auto magnitude = static_cast<std::size_t>(value < 0 ? -value : value);
      const std::uint64_t nonzero = kTrits.nonzero[magnitude];
      const std::uint64_t negative = kTrits.negative[magnitude] ^ (value < 0 ? nonzero : 0);
      for (std::size_t p = 0; p < kInt8Planes; ++p) {
        std::uint64_t* words =
            args.planes + p * args.plane_stride + r * row_words + bit_plane_word(k);
        words[0] |= (nonzero >> p & 1) << (k % 64);
        words[kPlaneWords] |= (negative >> p & 1) << (k % 64);
      }
    }
  }
}

}  // namespace

void quantize_int8(const QuantizeInt8Args& args) noexcept {
  with_type(args.type, [&](auto type) { quantize_as<type.value>(args); });
}

}  // namespace tfmbs::kernels::portable
