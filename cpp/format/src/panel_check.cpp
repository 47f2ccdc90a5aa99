#include "tfmbs/format/panel_check.hpp"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace tfmbs {
namespace {

// Sets what lies beyond the last trit to zero.
void clear_padding(BitPlaneMatrix& planes, std::size_t depth) {
  const std::size_t padded = planes.row_words() / 2 * 64;
  for (std::size_t k = depth / 64 * 64; k < padded; k += 64) {
    const std::uint64_t kept = k < depth ? (std::uint64_t{1} << (depth - k)) - 1 : 0;
    for (std::size_t n = 0; n < planes.rows(); ++n) {
      std::uint64_t* const word = planes.row(n) + bit_plane_word(k);
      word[0] &= kept;
      word[kPlaneWords] &= kept;
    }
  }
}

}  // namespace

// A layout has one code a trit, padding included: what is read and written again is the same bytes,
// or they were no codes.
Result<BitPlaneMatrix> checked_panel_rows(const WeightPanelsView& panels, std::size_t p) {
  const std::size_t first = p * kPanelOutputs;
  const std::size_t count = std::min(kPanelOutputs, panels.outputs - first);
  BitPlaneMatrix planes = panel_rows(panels, first, count);
  clear_padding(planes, panels.depth);
  WeightPanels again(panels.layout, count, panels.depth);
  if (auto s = again.set_rows(0, planes.view()); !s) return std::move(s).error();
  const std::uint8_t* const given = panels.bytes + panels.panel_offset(p);
  const std::uint8_t* const end = given + again.bytes();
  const auto [fault, wanted] = std::mismatch(given, end, again.view().bytes);
  if (fault == end) return planes;
  const auto offset = static_cast<std::uint64_t>(fault - panels.bytes);
  return Error{ErrorCode::kEncoding,
               "packed weights hold byte " + std::to_string(*fault) + " at offset " +
                   std::to_string(offset) + ", which is no code of '" + name_of(panels.layout) +
                   "' there",
               offset};
}

}  // namespace tfmbs
