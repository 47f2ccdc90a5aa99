// Arguments from Python, checked: wrong types raise TypeError, wrong values the core's errors, and
// both say what was given and what is allowed.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tfmbs/format/error.hpp"

namespace tfmbs::binding {

// An integer of Python's (anything with __index__ but bool) in [minimum, maximum]. Raises
// TypeError, or the error of `code`.
std::uint64_t unsigned_argument(nanobind::handle value, const char* name, ErrorCode code,
                                std::uint64_t maximum = std::numeric_limits<std::uint64_t>::max(),
                                std::uint64_t minimum = 0);

// A tile's number; anything beyond 64 bits comes as the limit that it passed. Raises TypeError.
std::int64_t tile_argument(nanobind::handle value);

// A lane mask: an integer of any size, bit l for lane l, as 64-bit words; empty for None.
std::vector<std::uint64_t> lane_mask_argument(nanobind::handle value);

// The words of a bytes-like object, or of an array or CPU tensor of integers that is contiguous.
// Raises TypeError, or kAddress for a size that is no multiple of 4 bytes.
std::vector<std::uint32_t> words_argument(nanobind::handle value);

}  // namespace tfmbs::binding
