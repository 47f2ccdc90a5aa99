#include "tfmbs/format/weight_panels.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <new>
#include <string>

namespace tfmbs {
namespace {

constexpr std::align_val_t kAlignment{64};
constexpr int kPowers[] = {1, 3, 9, 27, 81};
constexpr std::uint8_t kSign = 0x80;

// Sum of the weights of the bits that are set.
template <std::size_t kBits>
constexpr auto weighted_bits(const std::uint32_t (&weights)[kBits]) {
  std::array<std::uint32_t, std::size_t{1} << kBits> sums{};
  for (std::size_t bits = 0; bits < sums.size(); ++bits) {
    for (std::size_t i = 0; i < kBits; ++i) {
      if ((bits >> i & 1) != 0) sums[bits] += weights[i];
    }
  }
  return sums;
}

constexpr auto kQuadSums = weighted_bits({1, 3, 9, 27});
constexpr auto kPairSums = weighted_bits({1, 3, 1 << 4, 3 << 4});
constexpr auto kFiveSums = weighted_bits({1, 3, 9, 27, 81});
// One bit a byte, and bits i = 0, 1 of byte j two bits apart.
constexpr auto kByteSums = weighted_bits({1, 1 << 8, 1 << 16, 1 << 24});
constexpr auto kInt8Sums =
    weighted_bits({1, 1 << 8, 1 << 16, 1 << 24, 1 << 2, 1 << 10, 1 << 18, std::uint32_t{1} << 26});

// v + 121 to sign and magnitude.
constexpr auto kSignMagnitude = [] {
  std::array<std::uint8_t, 243> codes{};
  for (std::uint8_t magnitude = 0; magnitude <= 121; ++magnitude) {
    codes[std::size_t{121} - magnitude] = static_cast<std::uint8_t>(kSign | magnitude);
    codes[std::size_t{121} + magnitude] = magnitude;
  }
  return codes;
}();

// trits[i][byte]; a byte that is no code gives some trits.
struct Decoder {
  std::int8_t trits[5][256];
};

constexpr int digit(int value, int i) { return value / kPowers[i] % 3; }

template <typename Trit>
constexpr Decoder make_decoder(std::size_t count, Trit trit) {
  Decoder decoder{};
  for (std::size_t i = 0; i < count; ++i) {
    for (int byte = 0; byte < 256; ++byte) {
      decoder.trits[i][byte] = static_cast<std::int8_t>(trit(byte, static_cast<int>(i)));
    }
  }
  return decoder;
}

constexpr Decoder kDecodeQuads =
    make_decoder(4, [](int byte, int i) { return digit(byte, i) - 1; });
constexpr Decoder kDecodePairs = make_decoder(
    4, [](int byte, int i) { return digit(i < 2 ? byte & 15 : byte >> 4, i % 2) - 1; });
constexpr Decoder kDecodeTwoBits =
    make_decoder(4, [](int byte, int i) { return (byte >> 2 * i & 3) - 1; });
constexpr Decoder kDecodeFives = make_decoder(5, [](int byte, int i) {
  const int v = (byte & kSign) != 0 ? -(byte & 0x7F) : byte;
  return digit(v + 121, i) - 1;
});

constexpr const Decoder& decoder_of(WeightLayout layout) noexcept {
  switch (layout) {
    case WeightLayout::kTritQuads:
      return kDecodeQuads;
    case WeightLayout::kTritPairs:
      return kDecodePairs;
    case WeightLayout::kInt8Quads:
      return kDecodeTwoBits;
    case WeightLayout::kTritFives:
    case WeightLayout::kInt8Fives:
      break;
  }
  return kDecodeFives;
}

// The bits of one plane from trit k on, at least 20 of them; zeros beyond the row.
std::uint32_t window(const std::uint64_t* plane, std::size_t row_words, std::size_t k) noexcept {
  const std::size_t word = bit_plane_word(k);
  std::uint64_t bits = plane[word] >> (k % 64);
  if (k % 64 > 64 - 20) {
    const std::size_t next = bit_plane_word(k + 20);
    if (next < row_words) bits |= plane[next] << (64 - k % 64);
  }
  return static_cast<std::uint32_t>(bits);
}

// A group's bytes: one in the trit layouts, four in the int8 layouts. A trit is its bit of nonzero
// minus twice its bit of negative, and so are the sums.
std::uint32_t encode(WeightLayout layout, std::uint32_t nonzero, std::uint32_t negative) noexcept {
  switch (layout) {
    case WeightLayout::kTritQuads:
      return 40 + kQuadSums[nonzero & 15] - 2 * kQuadSums[negative & 15];
    case WeightLayout::kTritPairs:
      return 0x44 + kPairSums[nonzero & 15] - 2 * kPairSums[negative & 15];
    case WeightLayout::kTritFives:
      return kSignMagnitude[121 + kFiveSums[nonzero & 31] - 2 * kFiveSums[negative & 31]];
    case WeightLayout::kInt8Quads: {
      const auto spread = [](std::uint32_t bits) {
        return kInt8Sums[bits & 0xFF] + (kInt8Sums[bits >> 8 & 0xFF] << 4);
      };
      return 0x55555555 + spread(nonzero) - 2 * spread(negative);
    }
    case WeightLayout::kInt8Fives:
      break;
  }
  std::uint32_t biased = 0x79797979;  // 121 in each byte
  for (std::size_t i = 0; i < 5; ++i) {
    biased += static_cast<std::uint32_t>(kPowers[i]) *
              (kByteSums[nonzero >> 4 * i & 15] - 2 * kByteSums[negative >> 4 * i & 15]);
  }
  std::uint32_t codes = 0;
  for (std::size_t j = 0; j < 4; ++j) {
    codes |= static_cast<std::uint32_t>(kSignMagnitude[biased >> 8 * j & 0xFF]) << 8 * j;
  }
  return codes;
}

// Offset, inside a panel of `lines` lines, of the first byte of an output's group.
constexpr std::size_t offset_of(WeightLayout layout, std::size_t lines, std::size_t group,
                                std::size_t output) noexcept {
  const std::size_t held = line_outputs(layout);
  return (group * lines + output / held) * kPanelBytes + output % held * (kPanelBytes / held);
}

}  // namespace

void WeightPanelsView::decode(std::size_t p, std::size_t first, std::size_t count,
                              std::int8_t* out) const noexcept {
  const Decoder& decoder = decoder_of(layout);
  const std::size_t columns = is_int8(layout) ? 4 : 1;
  const std::size_t held = std::min(kPanelOutputs, outputs - p * kPanelOutputs);
  const std::size_t height = lines(p);
  const std::uint8_t* from = bytes + panel_offset(p);
  for (std::size_t k = first; k < first + count; ++k, out += kPanelOutputs) {
    const std::size_t within = k % group_depth(layout);
    const std::int8_t* trits = decoder.trits[within / columns];
    const std::size_t group = k / group_depth(layout);
    for (std::size_t n = 0; n < held; ++n) {
      out[n] = trits[from[offset_of(layout, height, group, n) + within % columns]];
    }
    std::fill(out + held, out + kPanelOutputs, std::int8_t{0});
  }
}

void WeightPanels::AlignedDelete::operator()(std::uint8_t* bytes) const noexcept {
  ::operator delete(bytes, kAlignment);
}

WeightPanels::WeightPanels(WeightLayout layout, std::size_t outputs, std::size_t depth)
    : layout_(layout), outputs_(outputs), depth_(depth) {
  if (outputs == 0 || depth == 0) return;
  constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max();
  // Both rounded up, their product bounds the size.
  if (depth > kMax / 2 - kBlockTrits || outputs > kMax / 2 - kPanelOutputs ||
      (outputs + kPanelOutputs) > kMax / (depth + kBlockTrits)) {
    throw std::bad_array_new_length();
  }
  const std::size_t size = view().size();
  auto* bytes = static_cast<std::uint8_t*>(::operator new(size, kAlignment));
  bytes_.reset(bytes);
  // A group of zeros has the same byte everywhere.
  std::memset(bytes, static_cast<int>(encode(layout, 0, 0) & 0xFF), size);
}

Status WeightPanels::set_rows(std::size_t first_output, BitPlaneView rows) {
  if (rows.trits != depth_ || first_output > outputs_ || rows.rows > outputs_ - first_output) {
    return Error{ErrorCode::kInvalidArgument,
                 "WeightPanels::set_rows: " + std::to_string(rows.rows) + " rows of " +
                     std::to_string(rows.trits) + " trits given for the outputs from " +
                     std::to_string(first_output) + " on of " + std::to_string(outputs_) + " x " +
                     std::to_string(depth_) + " weights"};
  }
  const std::size_t step = group_depth(layout_);
  for (std::size_t r = 0; r < rows.rows; ++r) {
    const std::size_t p = (first_output + r) / kPanelOutputs;
    const std::size_t output = (first_output + r) % kPanelOutputs;
    const std::size_t lines = view().lines(p);
    std::uint8_t* to = bytes_.get() + view().panel_offset(p) + offset_of(layout_, lines, 0, output);
    const std::uint64_t* nonzero = rows.row(r);
    const std::size_t words = rows.row_words();
    for (std::size_t k = 0; k < depth_; k += step, to += lines * kPanelBytes) {
      const std::uint32_t code = encode(layout_, window(nonzero, words, k),
                                        window(nonzero + kPlaneWords, words - kPlaneWords, k));
      if (is_int8(layout_)) {
        for (std::size_t j = 0; j < 4; ++j) to[j] = static_cast<std::uint8_t>(code >> 8 * j);
      } else {
        *to = static_cast<std::uint8_t>(code);
      }
    }
  }
  return {};
}

BitPlaneMatrix WeightPanels::rows(std::size_t first_output, std::size_t count) const {
  BitPlaneMatrix planes(count, depth_);
  const Decoder& decoder = decoder_of(layout_);
  const std::size_t columns = is_int8(layout_) ? 4 : 1;
  for (std::size_t r = 0; r < count; ++r) {
    const std::size_t p = (first_output + r) / kPanelOutputs;
    const std::size_t output = (first_output + r) % kPanelOutputs;
    const std::uint8_t* from = bytes_.get() + view().panel_offset(p);
    const std::size_t lines = view().lines(p);
    for (std::size_t k = 0; k < depth_; ++k) {
      const std::size_t within = k % group_depth(layout_);
      const std::size_t group = k / group_depth(layout_);
      const std::int8_t trit =
          decoder.trits[within / columns]
                       [from[offset_of(layout_, lines, group, output) + within % columns]];
      std::uint64_t* word = planes.row(r) + bit_plane_word(k);
      word[0] |= static_cast<std::uint64_t>(trit != 0) << k % 64;
      word[kPlaneWords] |= static_cast<std::uint64_t>(trit < 0) << k % 64;
    }
  }
  return planes;
}

}  // namespace tfmbs
