#include "tfmbs/linear/kept_activations.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "tfmbs/execution/workspace.hpp"
#include "tfmbs/format/bit_planes.hpp"

namespace tfmbs::linear {
namespace {

// --- trit and side in one code: three values in seven bits -------------------------------------

constexpr std::size_t kInCode = 3;
constexpr std::size_t kCodeBits = 7;
constexpr std::size_t kCodes = KeptLayout::kTritCodes / kInCode;
static_assert(kCodes * kCodeBits == 8 * KeptLayout::kTritCodeBytes);
static_assert(kKeptStep == KeptLayout::kTritCodes);

// 0, and then +1 and -1 inside, +1 and -1 outside: |x| <= clip holds for 0.
constexpr int kStates = 5;
constexpr int state_of(bool nonzero, bool negative, bool outside) {
  if (!nonzero) return 0;
  return 1 + (negative ? 1 : 0) + (outside ? 2 : 0);
}

// By three bits of each plane: nonzero, negative, outside.
constexpr auto kCodeOfBits = [] {
  std::array<std::uint8_t, 512> codes{};
  for (std::size_t bits = 0; bits < codes.size(); ++bits) {
    int code = 0;
    for (std::size_t i = kInCode; i-- > 0;) {
      const auto bit = [&](std::size_t plane) { return (bits >> (kInCode * plane + i) & 1) != 0; };
      code = kStates * code + state_of(bit(0), bit(1), bit(2));
    }
    codes[bits] = static_cast<std::uint8_t>(code);
  }
  return codes;
}();

// Three values and one of padding, so that a code's values are one store of four.
template <typename Float>
using Triple = std::array<Float, kInCode + 1>;

template <typename Float, typename Value>
constexpr auto triples_of(Value value) {
  std::array<Triple<Float>, 1U << kCodeBits> table{};
  for (std::size_t code = 0; code < table.size(); ++code) {
    std::size_t rest = code;
    for (std::size_t i = 0; i < kInCode; ++i) {
      table[code][i] = static_cast<Float>(value(rest % kStates));
      rest /= kStates;
    }
  }
  return table;
}
template <typename Float>
constexpr auto kTrits = triples_of<Float>([](std::size_t state) {
  if (state == 0) return 0;
  return state % 2 == 1 ? 1 : -1;
});
template <typename Float>
constexpr auto kInside = triples_of<Float>([](std::size_t state) { return state < 3 ? 1 : 0; });

// Codes of kTritCodes values from three planes' bits.
void write_codes(std::uint64_t nonzero, std::uint64_t negative, std::uint64_t outside,
                 std::uint8_t* out) noexcept {
  constexpr std::uint64_t kField = (1U << kInCode) - 1;
  std::uint64_t codes = 0;
  for (std::size_t i = 0; i < kCodes; ++i) {
    const std::size_t at = kInCode * i;
    const std::uint64_t bits = (nonzero >> at & kField) | (negative >> at & kField) << kInCode |
                               (outside >> at & kField) << 2 * kInCode;
    codes |= std::uint64_t{kCodeOfBits[bits]} << kCodeBits * i;
  }
  for (std::size_t i = 0; i < KeptLayout::kTritCodeBytes; ++i) {
    out[i] = static_cast<std::uint8_t>(codes >> 8 * i);
  }
}

std::uint64_t read_codes(const std::uint8_t* from) noexcept {
  std::uint64_t codes = 0;
  for (std::size_t i = 0; i < KeptLayout::kTritCodeBytes; ++i) {
    codes |= std::uint64_t{from[i]} << 8 * i;
  }
  return codes;
}

// Values of kTritCodes codes, and one more, which is unspecified.
template <typename Float>
void expand(const std::array<Triple<Float>, 1U << kCodeBits>& table, const std::uint8_t* from,
            Float* out) noexcept {
  constexpr std::uint64_t kField = (1U << kCodeBits) - 1;
  const std::uint64_t codes = read_codes(from);
  for (std::size_t i = 0; i < kCodes; ++i) {
    const Triple<Float>& triple = table[codes >> kCodeBits * i & kField];
    std::memcpy(out + kInCode * i, triple.data(), sizeof triple);
  }
}
inline constexpr std::size_t kExpanded = KeptLayout::kTritCodes + 1;

// Bits [k, k + kTritCodes) of a plane of a row; beyond the row they are zero.
std::uint64_t plane_bits(const std::uint64_t* plane, std::size_t k, std::size_t row_words) {
  const std::size_t shift = k % 64;
  std::uint64_t bits = plane[bit_plane_word(k)] >> shift;
  if (shift + KeptLayout::kTritCodes > 64) {
    const std::size_t next = bit_plane_word(k + 64 - shift);
    if (next < row_words) bits |= plane[next] << (64 - shift);
  }
  return bits;
}

// --- one bit a value ---------------------------------------------------------------------------

constexpr std::size_t bytes_of_bits(std::size_t bits) { return (bits + 7) / 8; }

void write_bits(const std::uint64_t* plane, std::size_t depth, std::uint8_t* out) noexcept {
  for (std::size_t k = 0; k < depth; k += 64) {
    const std::uint64_t word = plane[bit_plane_word(k)];
    const std::size_t bytes = std::min<std::size_t>(8, bytes_of_bits(depth - k));
    for (std::size_t i = 0; i < bytes; ++i) {
      out[k / 8 + i] = static_cast<std::uint8_t>(word >> 8 * i);
    }
  }
}

// Factors of eight values by the bits that say which are outside.
template <typename Float>
constexpr auto kFactors = [] {
  std::array<std::array<Float, 8>, 256> table{};
  for (std::size_t bits = 0; bits < table.size(); ++bits) {
    for (std::size_t i = 0; i < 8; ++i) table[bits][i] = (bits >> i & 1) != 0 ? 0 : 1;
  }
  return table;
}();

template <typename Float>
void multiply(Float* values, const Float* factors, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) values[i] *= factors[i];
}

double scale_of(const KeptRows& kept, const std::uint8_t* row) noexcept {
  double scale = 0;
  std::memcpy(&scale, row + kept.layout->scale_offset(), sizeof scale);
  return scale;
}

const std::uint8_t* row_of(const KeptRows& kept, std::size_t row) noexcept {
  return kept.bytes + row * kept.layout->row_bytes();
}

template <typename Float>
void dequantize(const KeptRows& kept, std::size_t row, std::size_t first, std::size_t count,
                Float* out) noexcept {
  const std::uint8_t* from = row_of(kept, row);
  if (kept.layout->is_int8()) {
    const auto scale = static_cast<Float>(scale_of(kept, from));
    const auto* values = reinterpret_cast<const std::int8_t*>(from) + first;
    for (std::size_t k = 0; k < count; ++k) out[k] = static_cast<Float>(values[k]) * scale;
    return;
  }
  from += first / KeptLayout::kTritCodes * KeptLayout::kTritCodeBytes;
  for (; count >= kExpanded; count -= KeptLayout::kTritCodes) {
    expand(kTrits<Float>, from, out);
    from += KeptLayout::kTritCodeBytes;
    out += KeptLayout::kTritCodes;
  }
  if (count == 0) return;
  Float last[kExpanded];
  expand(kTrits<Float>, from, last);
  std::copy_n(last, count, out);
}

template <typename Float>
void mask(const KeptRows& kept, std::size_t row, Float* gradient) noexcept {
  const KeptLayout& layout = *kept.layout;
  const std::uint8_t* from = row_of(kept, row);
  if (layout.is_joint()) {
    Float factors[kExpanded];
    for (std::size_t k = 0; k < layout.depth(); k += KeptLayout::kTritCodes) {
      expand(kInside<Float>, from, factors);
      from += KeptLayout::kTritCodeBytes;
      multiply(gradient + k, factors, std::min(KeptLayout::kTritCodes, layout.depth() - k));
    }
    return;
  }
  from += layout.bits_offset();
  for (std::size_t k = 0; k < layout.depth(); k += 8) {
    const std::uint8_t outside = *from++;
    if (outside == 0) continue;
    multiply(gradient + k, kFactors<Float>[outside].data(),
             std::min<std::size_t>(8, layout.depth() - k));
  }
}

}  // namespace

KeptLayout::KeptLayout(Activation activation, bool values, bool window, std::size_t depth) noexcept
    : by_values_(mode_of(activation).by_values), values_(values), window_(window), depth_(depth) {
  if (is_joint()) {
    row_bytes_ = (depth + kTritCodes - 1) / kTritCodes * kTritCodeBytes;
    return;
  }
  bits_offset_ = is_int8() ? depth : 0;
  scale_offset_ = bits_offset_ + (window ? bytes_of_bits(depth) : 0);
  row_bytes_ = scale_offset_ + (is_int8() ? sizeof(double) : 0);
}

void keep_rows(const KeptLayout& layout, const RowsToKeep& rows, std::uint8_t* out) {
  const std::size_t depth = layout.depth();
  if (depth == 0) return;
  const std::size_t words = bit_plane_blocks(depth) * kBlockWords;
  const std::size_t row_bytes = depth * kernels::float_bytes(rows.type);
  execution::Scratch memory;
  const auto trits = memory.take<std::uint64_t>(words);
  const auto sides = memory.take<std::uint64_t>(words);
  std::fill(sides.begin(), sides.end(), 0);
  const auto* input = static_cast<const std::byte*>(rows.input);
  const kernels::KernelSet& kernel = kernels::active();
  for (std::size_t r = 0; r < rows.rows; ++r, input += row_bytes, out += layout.row_bytes()) {
    std::uint8_t nan_row = 0;
    const auto ternarize = [&](const double* threshold, std::uint64_t* planes) {
      kernel.ternarize({.input = input,
                        .type = rows.type,
                        .rows = 1,
                        .columns = depth,
                        .row_stride = depth,
                        .thresholds = threshold,
                        .planes = planes,
                        .nan_rows = &nan_row});
    };
    if (layout.has_window()) ternarize(&rows.clip, sides.data());
    if (layout.is_joint()) {
      ternarize(nullptr, trits.data());
      std::uint8_t* to = out;
      for (std::size_t k = 0; k < depth; k += KeptLayout::kTritCodes) {
        write_codes(plane_bits(trits.data(), k, words),
                    plane_bits(trits.data() + kPlaneWords, k, words - kPlaneWords),
                    plane_bits(sides.data(), k, words), to);
        to += KeptLayout::kTritCodeBytes;
      }
      continue;
    }
    if (layout.has_window()) write_bits(sides.data(), depth, out + layout.bits_offset());
    if (!layout.is_int8()) continue;
    double scale = 1.0;
    kernel.quantize_int8({.input = input,
                          .type = rows.type,
                          .rows = 1,
                          .columns = depth,
                          .row_stride = depth,
                          .planes = nullptr,
                          .plane_stride = 0,
                          .values = reinterpret_cast<std::int8_t*>(out),
                          .scales = &scale,
                          .nan_rows = &nan_row});
    std::memcpy(out + layout.scale_offset(), &scale, sizeof scale);
  }
}

void dequantize_kept(const KeptRows& kept, std::size_t row, std::size_t first, std::size_t count,
                     float* out) noexcept {
  dequantize(kept, row, first, count, out);
}
void dequantize_kept(const KeptRows& kept, std::size_t row, std::size_t first, std::size_t count,
                     double* out) noexcept {
  dequantize(kept, row, first, count, out);
}
void apply_window(const KeptRows& kept, std::size_t row, float* gradient) noexcept {
  mask(kept, row, gradient);
}
void apply_window(const KeptRows& kept, std::size_t row, double* gradient) noexcept {
  mask(kept, row, gradient);
}

}  // namespace tfmbs::linear
