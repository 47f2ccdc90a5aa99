// field_count on 64-bit words, for the sets without a vector form: compiled once with the base
// instruction set and once with POPCNT and BMI.
#pragma once

#include "scalar.hpp"

namespace tfmbs::kernels {
namespace {

inline constexpr std::size_t kFieldTrits = 15;

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

// Word w of nonzero & occupancy, cut to bits below `end`.
inline std::uint64_t masked_word(const std::uint64_t* row, const std::uint64_t* occupancy,
                                 std::size_t w, std::size_t end) {
  if (64 * w >= end) return 0;
  std::uint64_t word =
      row[w / kPlaneWords * kBlockWords + w % kPlaneWords] & low_bits(end - 64 * w);
  if (occupancy != nullptr) word &= occupancy[w];
  return word;
}

inline void field_count_scalar(const FieldCountArgs& args) {
  const std::size_t row_words = blocks_of(args.trits) * kBlockWords;
  std::size_t slot = 0;
  for (std::size_t r = 0; r < args.rows; ++r) {
    const std::uint64_t* row = args.activations + r * row_words;
    for (std::size_t begin = 0; begin < args.trits; begin += args.chunk_depth, ++slot) {
      const std::size_t end =
          args.trits - begin < args.chunk_depth ? args.trits : begin + args.chunk_depth;
      std::uint64_t set_bits = 0;
      std::uint64_t set_fields = 0;
      std::uint64_t next = masked_word(row, args.occupancy, begin / 64, end);
      for (std::size_t w = begin / 64; 64 * w < end; ++w) {
        const std::uint64_t word = next;
        next = masked_word(row, args.occupancy, w + 1, end);
        const std::uint64_t from = 64 * w < begin ? ~low_bits(begin - 64 * w) : ~std::uint64_t{0};
        set_bits += static_cast<std::uint64_t>(__builtin_popcountll(word & from));
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
        set_fields += static_cast<std::uint64_t>(
            __builtin_popcountll(any & from & kFieldStarts.words[w % kFieldTrits]));
      }
      const std::uint64_t fields = (end - begin + kFieldTrits - 1) / kFieldTrits;
      args.steps[slot] = static_cast<std::uint32_t>(set_bits);
      args.cycles[slot] = static_cast<std::uint32_t>(set_bits + fields - set_fields);
    }
  }
}

}  // namespace
}  // namespace tfmbs::kernels
