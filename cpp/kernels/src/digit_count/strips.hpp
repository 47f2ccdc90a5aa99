// How the vector forms of digit_count go over values: strips of a chunk's depths, whose columns are
// counted in bytes for as many rows as these hold.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::kernels {
namespace {

// Of a row's values in a strip.
struct DigitTotals {
  std::uint32_t steps;
  std::uint32_t empty;  // planes of fields without a digit
};

// A Strip counts up to kValues columns: clear(depth), then add_rows(values, stride, rows, depth,
// totals) with up to kStepRows rows, kRows in all, and add_to(depth, counts).
template <typename Strip>
void count_strips(Strip& strip, const DigitCountArgs& args) {
  const std::size_t chunk = args.cycles != nullptr ? args.chunk_depth : args.depth;
  const std::size_t chunks = args.depth == 0 ? 0 : (args.depth + chunk - 1) / chunk;
  for (std::size_t i = 0; args.cycles != nullptr && i < args.rows * chunks; ++i) args.cycles[i] = 0;
  for (std::size_t first = 0; first < args.rows; first += Strip::kRows) {
    const std::size_t end = args.rows - first < Strip::kRows ? args.rows : first + Strip::kRows;
    for (std::size_t c = 0; c < chunks; ++c) {
      const std::size_t chunk_end = args.depth - c * chunk < chunk ? args.depth : (c + 1) * chunk;
      for (std::size_t k = c * chunk; k < chunk_end; k += Strip::kValues) {
        const std::size_t depth = chunk_end - k < Strip::kValues ? chunk_end - k : Strip::kValues;
        strip.clear(depth);
        for (std::size_t r = first; r < end; r += Strip::kStepRows) {
          const std::size_t rows = end - r < Strip::kStepRows ? end - r : Strip::kStepRows;
          DigitTotals totals[Strip::kStepRows];
          strip.add_rows(args.values + r * args.depth + k, args.depth, rows, depth, totals);
          for (std::size_t i = 0; i < rows; ++i) {
            *args.steps += totals[i].steps;
            if (args.cycles != nullptr) {
              args.cycles[(r + i) * chunks + c] += totals[i].steps + totals[i].empty;
            }
          }
        }
        strip.add_to(depth, args.counts + k);
      }
    }
  }
}

}  // namespace
}  // namespace tfmbs::kernels
