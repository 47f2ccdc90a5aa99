// The largest layer.
#pragma once

#include <cstdint>
#include <string_view>

#include "tfmbs/format/error.hpp"

#pragma GCC visibility push(default)

namespace tfmbs {

// 127 * 2^24 < 2^31, so int32 is exact for int8 x trit.
inline constexpr std::uint64_t kMaxDepth = std::uint64_t{1} << 24;
// With it, words and addresses of a layer are counted within 64 bits.
inline constexpr std::uint64_t kMaxOutputs = std::uint64_t{1} << 32;

// The error, of `code`, of a layer that is larger.
Status check_layer_size(std::string_view name, std::uint64_t outputs, std::uint64_t depth,
                        ErrorCode code);

}  // namespace tfmbs

#pragma GCC visibility pop
