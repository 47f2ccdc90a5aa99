#include "tfmbs/format/checkpoint_codes.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <optional>
#include <string>

#include "bytes.hpp"
#include "tfmbs/format/text.hpp"

namespace tfmbs {
namespace {

constexpr std::uint32_t kLowBits = 0x55;  // of each code of a byte

Error wrong_size(const char* what, std::size_t given, std::size_t needed) {
  return {ErrorCode::kInvalidArgument, std::string(what) + " holds " + std::to_string(given) +
                                           " values; " + std::to_string(needed) + " needed"};
}

Error fault(std::uint64_t offset, const std::string& what) {
  return {ErrorCode::kEncoding, "offset " + std::to_string(offset) + ": " + what, offset};
}

Error no_code(std::uint64_t offset, std::uint8_t byte) {
  return fault(offset, "byte " + hex(byte) + " holds code 3, which is no trit");
}

Status check_trits(std::span<const std::int8_t> trits) {
  std::uint8_t highest = 0;
  for (const std::int8_t trit : trits) {
    highest = std::max(highest, static_cast<std::uint8_t>(trit + 1));
  }
  if (highest <= 2) {
    return {};
  }
  const auto bad = std::find_if_not(trits.begin(), trits.end(), is_trit);
  const auto index = static_cast<std::uint64_t>(bad - trits.begin());
  return Error{ErrorCode::kInvalidArgument,
               "value " + std::to_string(*bad) + " at index " + std::to_string(index) +
                   " is no trit (-1, 0 or +1)",
               index};
}

// Whether all sizes agree, without a product that wraps.
[[nodiscard]] bool is_matrix(std::size_t size, std::size_t rows, std::size_t depth) noexcept {
  return depth == 0 || rows == 0 ? size == 0 : size % depth == 0 && size / depth == rows;
}

// 2^exponent * mantissa, exactly.
[[nodiscard]] float float_of_half(std::uint16_t half) noexcept {
  const std::uint32_t sign = std::uint32_t{half} >> 15 << 31;
  const std::uint32_t exponent = half >> 10 & 31;
  const std::uint32_t mantissa = half & 1023U;
  if (exponent == 0) {
    const float value = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -value : value;
  }
  const std::uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

// Nothing where fp16 does not hold the value, or it is not finite.
[[nodiscard]] std::optional<std::uint16_t> half_of_float(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 31 << 15);
  const float size = std::fabs(value);
  std::uint32_t half = 0;
  if (size < 0x1p-14F) {
    half = static_cast<std::uint32_t>(size * 0x1p24F);  // subnormal, in units of 2^-24
  } else if (size <= 65504.0F) {
    half = (bits >> 13 & 0x3FFFF) - (112U << 10);
  } else {
    return std::nullopt;  // NaN too
  }
  const auto result = static_cast<std::uint16_t>(half | sign);
  if (float_of_half(result) != value) {
    return std::nullopt;
  }
  return result;
}

// ceil(256 q / 243): the byte of five base-3 digits.
[[nodiscard]] constexpr std::uint8_t fraction(std::uint32_t q) noexcept {
  return static_cast<std::uint8_t>((q * 256 + 242) / 243);
}

// Whether a byte is one of five digits (index 0), or of four (index 1).
constexpr auto kIsFraction = [] {
  std::array<std::array<bool, 256>, 2> table{};
  for (std::uint32_t q = 0; q < 243; ++q) {
    table[0][fraction(q)] = true;
    if (q % 3 == 0) table[1][fraction(q)] = true;
  }
  return table;
}();

// A run of bytes of TQ1_0 that share a stride: byte m holds the weights first + n * bytes + m.
struct Tq1Run {
  std::size_t byte, bytes, first, digits;
};
constexpr std::array<Tq1Run, 3> kTq1Runs{{{0, 32, 0, 5}, {32, 16, 160, 5}, {48, 4, 240, 4}}};
constexpr std::size_t kScaleBytes = 2;
constexpr std::size_t kTq2Codes = 64;

[[nodiscard]] constexpr bool is_q2(TernaryBlocks kind) noexcept {
  return kind == TernaryBlocks::kQ2 || kind == TernaryBlocks::kQ2Wide;
}

// Where a block's codes and scale begin.
[[nodiscard]] constexpr std::size_t code_offset(TernaryBlocks kind) noexcept {
  return is_q2(kind) ? kScaleBytes : 0;
}
[[nodiscard]] constexpr std::size_t scale_offset(TernaryBlocks kind) noexcept {
  return is_q2(kind) ? 0 : block_bytes(kind) - kScaleBytes;
}

// False where a byte is no code. A byte b of five digits is ceil(256 q / 243) of some q if and only
// if 243 b mod 256 is below 243. The sizes are constants, so that the loops become vector code.
template <Tq1Run kRun>
[[nodiscard]] bool unpack_tq1_run(const std::uint8_t* bytes, std::int8_t* trits) noexcept {
  std::array<std::uint8_t, kRun.bytes> rest;
  std::copy_n(bytes + kRun.byte, kRun.bytes, rest.begin());
  bool valid = true;
  if constexpr (kRun.digits == 5) {
    std::uint8_t highest = 0;
    for (const std::uint8_t byte : rest) {
      highest = std::max(highest, static_cast<std::uint8_t>(byte * 243U));
    }
    valid = highest < 243;
  } else {
    for (const std::uint8_t byte : rest) valid &= kIsFraction[1][byte];
  }
  for (std::size_t n = 0; n < kRun.digits; ++n) {
    for (std::size_t m = 0; m < kRun.bytes; ++m) {
      const std::uint32_t product = std::uint32_t{rest[m]} * 3;
      trits[kRun.first + n * kRun.bytes + m] =
          static_cast<std::int8_t>(static_cast<int>(product >> 8) - 1);
      rest[m] = static_cast<std::uint8_t>(product);
    }
  }
  return valid;
}

[[nodiscard]] bool unpack_tq1(const std::uint8_t* bytes, std::int8_t* trits) noexcept {
  const bool a = unpack_tq1_run<kTq1Runs[0]>(bytes, trits);
  const bool b = unpack_tq1_run<kTq1Runs[1]>(bytes, trits);
  const bool c = unpack_tq1_run<kTq1Runs[2]>(bytes, trits);
  return a && b && c;
}

[[nodiscard]] bool unpack_tq2(const std::uint8_t* bytes, std::int8_t* trits) noexcept {
  std::uint32_t bad = 0;
  for (std::size_t j = 0; j < 2; ++j) {
    for (std::size_t m = 0; m < 32; ++m) {
      const std::uint32_t byte = bytes[32 * j + m];
      bad |= byte & byte >> 1 & kLowBits;
    }
    for (std::size_t l = 0; l < 4; ++l) {
      for (std::size_t m = 0; m < 32; ++m) {
        const std::uint32_t code = bytes[32 * j + m] >> 2 * l & 3U;
        trits[128 * j + 32 * l + m] = static_cast<std::int8_t>(static_cast<int>(code) - 1);
      }
    }
  }
  return bad == 0;
}

// The four trits of each byte of Q2_0, and 2 for code 3.
constexpr auto kQ2Trits = [] {
  std::array<std::array<std::int8_t, 4>, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    for (std::uint32_t l = 0; l < 4; ++l) {
      table[byte][l] = static_cast<std::int8_t>(static_cast<int>(byte >> 2 * l & 3U) - 1);
    }
  }
  return table;
}();

[[nodiscard]] bool unpack_q2(const std::uint8_t* bytes, std::size_t count,
                             std::int8_t* trits) noexcept {
  std::uint32_t bad = 0;
  for (std::size_t m = 0; m < count; ++m) {
    const std::uint32_t byte = bytes[m];
    bad |= byte & byte >> 1 & kLowBits;
    std::copy_n(kQ2Trits[byte].data(), 4, trits + 4 * m);
  }
  return bad == 0;
}

[[nodiscard]] bool unpack_codes(TernaryBlocks kind, const std::uint8_t* block,
                                std::int8_t* trits) noexcept {
  switch (kind) {
    case TernaryBlocks::kTq1:
      return unpack_tq1(block, trits);
    case TernaryBlocks::kTq2:
      return unpack_tq2(block, trits);
    default:
      return unpack_q2(block + code_offset(kind), block_trits(kind) / 4, trits);
  }
}

Error block_fault(TernaryBlocks kind, std::span<const std::uint8_t> block, std::uint64_t offset) {
  const std::size_t first = code_offset(kind);
  for (std::size_t i = first; i < first + block.size() - kScaleBytes; ++i) {
    const std::uint8_t byte = block[i];
    if (kind == TernaryBlocks::kTq1) {
      if (!kIsFraction[i < 48 ? 0 : 1][byte]) {
        return fault(offset + i, "byte " + hex(byte) + " is no code of TQ1_0");
      }
    } else if ((byte & byte >> 1 & kLowBits) != 0) {
      return is_q2(kind) ? fault(offset + i, "byte " + hex(byte) + " holds +2, which is no trit")
                         : no_code(offset + i, byte);
    }
  }
  return fault(offset + scale_offset(kind), "the scale of a block is not finite");
}

void pack_tq1(const std::int8_t* trits, std::uint8_t* bytes) noexcept {
  for (const Tq1Run& run : kTq1Runs) {
    for (std::size_t m = 0; m < run.bytes; ++m) {
      std::uint32_t q = 0;
      for (std::size_t n = 0; n < 5; ++n) {
        const int code = n < run.digits ? trits[run.first + n * run.bytes + m] + 1 : 0;
        q = q * 3 + static_cast<std::uint32_t>(code);
      }
      bytes[run.byte + m] = fraction(q);
    }
  }
}

void pack_tq2(const std::int8_t* trits, std::uint8_t* bytes) noexcept {
  for (std::size_t i = 0; i < kTq2Codes; ++i) {
    std::uint32_t byte = 0;
    for (std::size_t l = 0; l < 4; ++l) {
      const int code = trits[i / 32 * 128 + 32 * l + i % 32] + 1;
      byte |= static_cast<std::uint32_t>(code) << 2 * l;
    }
    bytes[i] = static_cast<std::uint8_t>(byte);
  }
}

void pack_q2(const std::int8_t* trits, std::size_t count, std::uint8_t* bytes) noexcept {
  for (std::size_t m = 0; m < count; ++m) {
    std::uint32_t byte = 0;
    for (std::size_t l = 0; l < 4; ++l) {
      byte |= static_cast<std::uint32_t>(trits[4 * m + l] + 1) << 2 * l;
    }
    bytes[m] = static_cast<std::uint8_t>(byte);
  }
}

Status check_blocks(TernaryBlocks kind, std::size_t bytes, std::size_t trits, std::size_t scales) {
  const std::size_t size = block_bytes(kind);
  const std::size_t blocks = bytes / size;
  if (bytes % size != 0) {
    return wrong_size("a sequence of blocks", bytes, (blocks + 1) * size);
  }
  const std::size_t weights = block_trits(kind);
  if (trits % weights != 0 || trits / weights != blocks) {
    return wrong_size("trits", trits, blocks * weights);
  }
  if (scales != blocks) {
    return wrong_size("scales", scales, blocks);
  }
  return {};
}

}  // namespace

Status unpack_strided_codes(std::span<const std::uint8_t> packed, std::size_t outputs,
                            std::size_t depth, std::span<std::int8_t> trits) {
  const std::size_t rows = strided_rows(outputs);
  if (!is_matrix(packed.size(), rows, depth)) {
    return wrong_size("packed", packed.size(), rows * depth);
  }
  if (!is_matrix(trits.size(), outputs, depth)) {
    return wrong_size("trits", trits.size(), outputs * depth);
  }
  for (std::size_t r = 0; r < rows; ++r) {
    const std::uint8_t* row = packed.data() + r * depth;
    std::uint32_t kept = 0;  // the low bits of the outputs that there are
    for (std::size_t i = 0; i < kStridedRows && i * rows + r < outputs; ++i) {
      kept |= 1U << 2 * i;
      std::int8_t* out = trits.data() + (i * rows + r) * depth;
      for (std::size_t k = 0; k < depth; ++k) {
        out[k] = static_cast<std::int8_t>((row[k] >> 2 * i & 3) - 1);
      }
    }
    std::uint32_t bad = 0;
    for (std::size_t k = 0; k < depth; ++k) {
      bad |= std::uint32_t{row[k]} & std::uint32_t{row[k]} >> 1;
    }
    if ((bad & kept) != 0) {
      const auto* byte = std::find_if(row, row + depth, [kept](std::uint8_t b) {
        return (std::uint32_t{b} & std::uint32_t{b} >> 1 & kept) != 0;
      });
      return no_code(static_cast<std::uint64_t>(byte - packed.data()), *byte);
    }
  }
  return {};
}

Status pack_strided_codes(std::span<const std::int8_t> trits, std::size_t outputs,
                          std::size_t depth, std::span<std::uint8_t> packed) {
  const std::size_t rows = strided_rows(outputs);
  if (!is_matrix(packed.size(), rows, depth)) {
    return wrong_size("packed", packed.size(), rows * depth);
  }
  if (!is_matrix(trits.size(), outputs, depth)) {
    return wrong_size("trits", trits.size(), outputs * depth);
  }
  if (Status status = check_trits(trits); !status) {
    return status;
  }
  std::fill(packed.begin(), packed.end(), std::uint8_t{0});
  for (std::size_t output = 0; output < outputs; ++output) {
    const std::int8_t* row = trits.data() + output * depth;
    std::uint8_t* out = packed.data() + output % rows * depth;
    const std::size_t shift = 2 * (output / rows);
    for (std::size_t k = 0; k < depth; ++k) {
      const auto code = static_cast<std::uint32_t>(row[k] + 1);
      out[k] = static_cast<std::uint8_t>(out[k] | code << shift);
    }
  }
  return {};
}

Result<TernaryBlocks> parse_ternary_blocks(std::string_view name) {
  if (name == "tq1_0") {
    return TernaryBlocks::kTq1;
  }
  if (name == "tq2_0") {
    return TernaryBlocks::kTq2;
  }
  if (name == "q2_0") {
    return TernaryBlocks::kQ2;
  }
  if (name == "q2_0_g128") {
    return TernaryBlocks::kQ2Wide;
  }
  return Error{ErrorCode::kInvalidArgument,
               "blocks are '" + std::string(name) +
                   "'; allowed are 'tq1_0', 'tq2_0', 'q2_0' and 'q2_0_g128'"};
}

Status unpack_ternary_blocks(TernaryBlocks kind, std::span<const std::uint8_t> bytes,
                             std::span<std::int8_t> trits, std::span<float> scales) {
  if (Status status = check_blocks(kind, bytes.size(), trits.size(), scales.size()); !status) {
    return status;
  }
  const std::size_t size = block_bytes(kind);
  const std::size_t weights = block_trits(kind);
  const std::size_t at = scale_offset(kind);
  for (std::size_t b = 0; b < scales.size(); ++b) {
    const auto block = bytes.subspan(b * size, size);
    std::int8_t* out = trits.data() + b * weights;
    const bool valid = unpack_codes(kind, block.data(), out);
    scales[b] = float_of_half(static_cast<std::uint16_t>(block[at] | block[at + 1] << 8));
    if (!valid || !std::isfinite(scales[b])) {
      return block_fault(kind, block, b * size);
    }
    if (scales[b] == 0) {
      std::fill_n(out, weights, std::int8_t{0});
    }
  }
  return {};
}

Status pack_ternary_blocks(TernaryBlocks kind, std::span<const std::int8_t> trits,
                           std::span<const float> scales, std::span<std::uint8_t> bytes) {
  if (Status status = check_blocks(kind, bytes.size(), trits.size(), scales.size()); !status) {
    return status;
  }
  if (Status status = check_trits(trits); !status) {
    return status;
  }
  const std::size_t size = block_bytes(kind);
  const std::size_t weights = block_trits(kind);
  const std::size_t at = scale_offset(kind);
  for (std::size_t b = 0; b < scales.size(); ++b) {
    const std::int8_t* block = trits.data() + b * weights;
    std::uint8_t* out = bytes.data() + b * size;
    if (kind == TernaryBlocks::kTq1) {
      pack_tq1(block, out);
    } else if (kind == TernaryBlocks::kTq2) {
      pack_tq2(block, out);
    } else {
      pack_q2(block, weights / 4, out + code_offset(kind));
    }
    const bool zero = std::all_of(block, block + weights, [](std::int8_t t) { return t == 0; });
    const auto half = half_of_float(zero ? 0.0F : scales[b]);
    if (!half) {
      return Error{ErrorCode::kInvalidArgument,
                   "scale " + std::to_string(scales[b]) + " of block " + std::to_string(b) +
                       " is no value of fp16",
                   b};
    }
    out[at] = static_cast<std::uint8_t>(*half & 0xFF);
    out[at + 1] = static_cast<std::uint8_t>(*half >> 8);
  }
  return {};
}

Status unpack_interleaved_codes(std::span<const std::uint8_t> bytes, std::size_t block,
                                std::span<std::int8_t> trits) {
  if (block != 64 && block != 128) {
    return Error{ErrorCode::kInvalidArgument,
                 "block is " + std::to_string(block) + "; allowed are 64 and 128"};
  }
  const std::size_t size = block / 4;
  if (bytes.size() % size != 0) {
    return wrong_size("a sequence of blocks", bytes.size(), (bytes.size() / size + 1) * size);
  }
  if (trits.size() % 4 != 0 || trits.size() / 4 != bytes.size()) {
    return wrong_size("trits", trits.size(), bytes.size() * 4);
  }
  std::uint32_t bad = 0;
  for (std::size_t at = 0; at < bytes.size(); at += size) {
    const std::uint8_t* in = bytes.data() + at;
    for (std::size_t m = 0; m < size; ++m) {
      bad |= std::uint32_t{in[m]} & std::uint32_t{in[m]} >> 1;
    }
    for (std::size_t l = 0; l < 4; ++l) {
      std::int8_t* out = trits.data() + 4 * at + l * size;
      for (std::size_t m = 0; m < size; ++m) {
        const std::uint32_t code = std::uint32_t{in[m]} >> (6 - 2 * l) & 3U;
        out[m] = static_cast<std::int8_t>(static_cast<int>(code) - 1);
      }
    }
  }
  if ((bad & kLowBits) != 0) {
    const auto byte = std::find_if(bytes.begin(), bytes.end(), [](std::uint8_t b) {
      return (std::uint32_t{b} & std::uint32_t{b} >> 1 & kLowBits) != 0;
    });
    return no_code(static_cast<std::uint64_t>(byte - bytes.begin()), *byte);
  }
  return {};
}

}  // namespace tfmbs
