// Whether bytes from outside are weight panels.
#pragma once

#include <cstddef>

#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/format/error.hpp"
#include "tfmbs/format/weight_panels.hpp"

#pragma GCC visibility push(default)

namespace tfmbs {

// The trits of panel p, one output a row. Errors: kEncoding: a byte that is no code of the layout,
// or padding that is not zero; `offset` is the byte's among the panels'. Throws std::bad_alloc.
// Precondition: p < panels.panels().
Result<BitPlaneMatrix> checked_panel_rows(const WeightPanelsView& panels, std::size_t p);

}  // namespace tfmbs

#pragma GCC visibility pop
