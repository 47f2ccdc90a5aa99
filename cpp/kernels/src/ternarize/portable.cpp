#include "operations.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::portable {
namespace {

template <typename Bits>
void ternarize_as(const TernarizeArgs& args, FloatFormat format) noexcept {
  const std::size_t blocks = blocks_of(args.columns);
  for (std::size_t r = 0; r < args.rows; ++r) {
    const std::uint64_t threshold =
        threshold_magnitude(args.thresholds != nullptr ? args.thresholds[r] : 0.0, format);
    const unsigned char* row = byte_offset(args.input, r * args.row_stride * sizeof(Bits));
    std::uint64_t* planes = args.planes + r * blocks * kBlockWords;
    std::uint64_t nan = 0;
    for (std::size_t k = 0; k < blocks * kBlockTrits; k += 64) {
      const std::size_t count = k >= args.columns       ? 0
                                : args.columns - k < 64 ? args.columns - k
                                                        : 64;
      std::uint64_t nonzero = 0;
      std::uint64_t negative = 0;
      for (std::size_t i = 0; i < count; ++i) {
        Bits bits = 0;
        std::memcpy(&bits, row + (k + i) * sizeof(Bits), sizeof(Bits));
        const std::uint64_t magnitude = bits & ~format.sign;
        const std::uint64_t is_nan = magnitude > format.infinity ? 1 : 0;
        const std::uint64_t is_set = magnitude > threshold ? is_nan ^ 1 : 0;
        const std::uint64_t is_minus = (bits & format.sign) != 0 ? is_set : 0;
        nan |= is_nan;
        nonzero |= is_set << i;
        negative |= is_minus << i;
      }
      std::uint64_t* words = planes + bit_plane_word(k);
      words[0] = nonzero;
      words[kPlaneWords] = negative;
    }
    args.nan_rows[r] = static_cast<std::uint8_t>(nan);
  }
}

}  // namespace

void ternarize(const TernarizeArgs& args) noexcept {
  const FloatFormat format = format_of(args.type);
  switch (args.type) {
    case FloatType::kFloat64:
      return ternarize_as<std::uint64_t>(args, format);
    case FloatType::kFloat32:
      return ternarize_as<std::uint32_t>(args, format);
    case FloatType::kBFloat16:
    case FloatType::kFloat16:
      return ternarize_as<std::uint16_t>(args, format);
  }
}

}  // namespace tfmbs::kernels::portable
