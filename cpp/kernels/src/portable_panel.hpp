// The portable products: decoded weights of a panel times rows of int8.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::kernels::portable {

// 127 * 256 = 32512: an int16 holds the sum of as many products.
inline constexpr std::size_t kPanelDepths = 256;

// read(m, first, count, to) gives activations of row m as int8.
template <typename Args, typename Read>
void panel_product(const Args& args, Read read) noexcept {
  const WeightPanelsView& weights = args.weights;
  for (std::size_t n = 0; n < args.outputs; n += kPanelOutputs) {
    const std::size_t left = args.outputs - n;
    const std::size_t held = left < kPanelOutputs ? left : kPanelOutputs;
    for (std::size_t m = 0; m < args.rows; ++m) {
      std::int32_t* out = args.out + m * args.out_stride + n;
      for (std::size_t i = 0; i < held; ++i) out[i] = 0;
    }
    for (std::size_t k = 0; k < weights.depth; k += kPanelDepths) {
      const std::size_t rest = weights.depth - k;
      const std::size_t depths = rest < kPanelDepths ? rest : kPanelDepths;
      std::int8_t panel[kPanelDepths * kPanelOutputs];
      weights.decode((args.first_output + n) / kPanelOutputs, k, depths, panel);
      for (std::size_t m = 0; m < args.rows; ++m) {
        std::int8_t activations[kPanelDepths];
        read(m, k, depths, activations);
        std::int16_t sums[kPanelOutputs] = {};
        for (std::size_t d = 0; d < depths; ++d) {
          const std::int16_t activation = activations[d];
          const std::int8_t* trits = panel + d * kPanelOutputs;
          for (std::size_t i = 0; i < kPanelOutputs; ++i) {
            sums[i] = static_cast<std::int16_t>(sums[i] + activation * trits[i]);
          }
        }
        std::int32_t* out = args.out + m * args.out_stride + n;
        for (std::size_t i = 0; i < held; ++i) out[i] += sums[i];
      }
    }
  }
}

}  // namespace tfmbs::kernels::portable
