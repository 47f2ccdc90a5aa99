// Fields of 15 bits from 64-bit words, and pack_fields of them, compiled once a set without a
// vector form.
#pragma once

#include "scalar.hpp"

namespace tfmbs::kernels {
namespace {

// Field j of the non-zero plane of a row that has `words` words of it.
inline std::uint16_t field_of_row(const std::uint64_t* row, std::size_t words, std::size_t j) {
  const auto word = [row](std::size_t w) {
    return row[w / kPlaneWords * kBlockWords + w % kPlaneWords];
  };
  const std::size_t w = j * kFieldTrits / 64;
  const std::size_t shift = j * kFieldTrits % 64;
  std::uint64_t bits = word(w) >> shift;
  if (shift > 64 - kFieldTrits && w + 1 < words) bits |= word(w + 1) << (64 - shift);
  return static_cast<std::uint16_t>(bits & 0x7FFF);
}

inline void pack_fields_scalar(const PackFieldsArgs& args) {
  const std::size_t blocks = blocks_of(args.trits);
  const std::size_t words = blocks * kPlaneWords;
  const std::size_t fields = (args.trits + kFieldTrits - 1) / kFieldTrits;
  for (std::size_t r = 0; r < args.rows; ++r) {
    const std::uint64_t* row = args.activations + r * blocks * kBlockWords;
    std::uint16_t* out = args.fields + r * args.row_stride;
    for (std::size_t j = 0; j < fields; ++j) {
      const std::uint16_t field = field_of_row(row, words, j);
      for (std::size_t i = 0; i < args.copies; ++i) *out++ = field;
    }
  }
}

}  // namespace
}  // namespace tfmbs::kernels
