#include "operations.hpp"
#include "quantize_int8/balanced_trits.hpp"

namespace tfmbs::kernels::portable {
namespace {

constexpr TritTable<128> kTrits;

}  // namespace

void digit_count(const DigitCountArgs& args) noexcept {
  const std::size_t chunk = args.cycles != nullptr ? args.chunk_depth : args.depth;
  std::uint32_t* cycles = args.cycles;
  std::uint64_t all_steps = 0;
  for (std::size_t r = 0; r < args.rows; ++r) {
    const std::int8_t* row = args.values + r * args.depth;
    for (std::size_t begin = 0; begin < args.depth; begin += chunk) {
      const std::size_t end = args.depth - begin < chunk ? args.depth : begin + chunk;
      std::uint32_t empty = 0;
      std::uint32_t steps = 0;
      for (std::size_t field = begin; field < end; field += kFieldTrits) {
        const std::size_t field_end = end - field < kFieldTrits ? end : field + kFieldTrits;
        unsigned any = 0;
        for (std::size_t k = field; k < field_end; ++k) {
          const unsigned nonzero = kTrits.nonzero[row[k] < 0 ? -row[k] : row[k]];
          const auto count = static_cast<std::uint32_t>(__builtin_popcount(nonzero));
          any |= nonzero;
          steps += count;
          args.counts[k] += count;
        }
        empty += static_cast<std::uint32_t>(kInt8Planes) -
                 static_cast<std::uint32_t>(__builtin_popcount(any));
      }
      all_steps += steps;
      if (cycles != nullptr) *cycles++ = steps + empty;
    }
  }
  *args.steps += all_steps;
}

}  // namespace tfmbs::kernels::portable
