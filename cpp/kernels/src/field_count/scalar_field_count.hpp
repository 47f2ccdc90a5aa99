// field_count on 64-bit words, for the sets without a vector form: compiled once with the base
// instruction set and once with POPCNT and BMI.
#pragma once

#include "scalar.hpp"

namespace tfmbs::kernels {
namespace {

// Bit i is set where trit 64 w + i begins a field; the pattern depends on w mod 15.
struct FieldStarts {
  std::uint64_t words[kFieldTrits];
  constexpr FieldStarts() : words{} {
    for (std::size_t k = 0; k < 64 * kFieldTrits; k += kFieldTrits) {
      words[k / 64] |= std::uint64_t{1} << (k % 64);
    }
  }
};
inline constexpr FieldStarts kFieldStarts;

inline std::uint64_t low_bits(std::size_t count) {
  return count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
}

// Word w of the non-zero plane, cut to bits below `end`.
inline std::uint64_t nonzero_word(const std::uint64_t* row, std::size_t w, std::size_t end) {
  if (64 * w >= end) return 0;
  return row[w / kPlaneWords * kBlockWords + w % kPlaneWords] & low_bits(end - 64 * w);
}

struct FieldTotals {
  std::uint64_t steps;
  std::uint64_t fields;  // that are not zero
};

// Of trits begin ... end - 1.
inline FieldTotals count_fields(const std::uint64_t* row, std::size_t begin, std::size_t end) {
  FieldTotals totals{0, 0};
  std::uint64_t next = nonzero_word(row, begin / 64, end);
  for (std::size_t w = begin / 64; 64 * w < end; ++w) {
    const std::uint64_t word = next;
    next = nonzero_word(row, w + 1, end);
    const std::uint64_t from = 64 * w < begin ? ~low_bits(begin - 64 * w) : ~std::uint64_t{0};
    totals.steps += static_cast<std::uint64_t>(__builtin_popcountll(word & from));
    // Bit i of `any` becomes the OR of bits i...i+14, which reach into the next word.
    std::uint64_t any = word;
    std::uint64_t above = next;
    any |= any >> 1 | above << 63;
    above |= above >> 1;
    any |= any >> 2 | above << 62;
    above |= above >> 2;
    any |= any >> 4 | above << 60;
    above |= above >> 4;
    any |= any >> 7 | above << 57;
    totals.fields += static_cast<std::uint64_t>(
        __builtin_popcountll(any & from & kFieldStarts.words[w % kFieldTrits]));
  }
  return totals;
}

inline void field_count_scalar(const FieldCountArgs& args) {
  const std::size_t row_words = blocks_of(args.trits) * kBlockWords;
  std::uint32_t* cycles = args.cycles;
  std::uint64_t all_steps = 0;
  for (std::size_t r = 0; r < args.rows; ++r) {
    for (std::size_t begin = 0; begin < args.trits; begin += args.chunk_depth) {
      const std::size_t end =
          args.trits - begin < args.chunk_depth ? args.trits : begin + args.chunk_depth;
      const FieldTotals totals = count_fields(args.activations + r * row_words, begin, end);
      const std::uint64_t fields = (end - begin + kFieldTrits - 1) / kFieldTrits;
      *cycles++ = static_cast<std::uint32_t>(totals.steps + fields - totals.fields);
      all_steps += totals.steps;
    }
  }
  *args.steps += all_steps;
}

}  // namespace
}  // namespace tfmbs::kernels
