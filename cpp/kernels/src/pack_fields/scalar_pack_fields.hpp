// pack_fields on 64-bit words, compiled once a set without a vector form.
#pragma once

#include "scalar.hpp"

namespace tfmbs::kernels {
namespace {

inline void pack_fields_scalar(const PackFieldsArgs& args) {
  const std::size_t blocks = blocks_of(args.trits);
  const std::size_t words = blocks * kPlaneWords;
  const std::size_t fields = (args.trits + kFieldTrits - 1) / kFieldTrits;
  for (std::size_t r = 0; r < args.rows; ++r) {
    const std::uint64_t* row = args.activations + r * blocks * kBlockWords;
    const auto word = [row](std::size_t w) {
      return row[w / kPlaneWords * kBlockWords + w % kPlaneWords];
    };
    std::uint16_t* out = args.fields + r * args.row_stride;
    for (std::size_t j = 0; j < fields; ++j) {
      const std::size_t w = j * kFieldTrits / 64;
      const std::size_t shift = j * kFieldTrits % 64;
      std::uint64_t bits = word(w) >> shift;
      if (shift > 64 - kFieldTrits && w + 1 < words) bits |= word(w + 1) << (64 - shift);
      const auto field = static_cast<std::uint16_t>(bits & 0x7FFF);
      for (std::size_t i = 0; i < args.copies; ++i) *out++ = field;
    }
  }
}

}  // namespace
}  // namespace tfmbs::kernels
