// How a trainable layer's float weights become trits and scales.
#pragma once

#include <cstdint>
#include <string_view>

#include "tfmbs/format/error.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::linear {

// kCustom: trits come from a quantizer outside the library.
enum class WeightQuantizer : std::uint8_t { kSign, kAbsmean, kTwn, kCustom };

[[nodiscard]] std::string_view name_of(WeightQuantizer quantizer) noexcept;
// Errors: kInvalidArgument, with the names that are allowed.
Result<WeightQuantizer> parse_weight_quantizer(std::string_view text);

}  // namespace tfmbs::linear

#pragma GCC visibility pop
