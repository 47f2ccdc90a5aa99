// Ternary codes of other projects' model files, to int8 trits and back. A code is a trit plus 1.
//
//   strided codes   transformers' packed BitNet weight: [ceil(N / 4), K] bytes. Packed row r holds
//                   the outputs i * R + r, i = 0...3, of R packed rows, in bits 2i and 2i + 1.
//                   Outputs beyond the last are not read, and are written as code 0.
//   ternary blocks  GGUF's TQ1_0, TQ2_0 and Q2_0: blocks of weights with a scale in fp16. A block's
//                   weights are its trits times its scale.
//     TQ2_0  64 bytes of four codes; the weight 128j + 32l + m is in bits 2l and 2l + 1 of byte
//            32j + m. Then the scale.
//     TQ1_0  48 bytes of five codes and 4 bytes of four, as fractions in base 3: a byte is
//            ceil(256 q / 243), and the first code is the highest digit of q. The weight 32n + m
//            is digit n of byte m (m < 32); 160 + 16n + m of byte 32 + m (m < 16); 240 + 4n + m of
//            byte 48 + m (m < 4). Then the scale.
//     Q2_0   The scale, then 16 bytes (64 weights) or 32 bytes (128) of four codes; the weight j is
//            in bits 2(j mod 4) and 2(j mod 4) + 1 of byte j / 4. Code 3 is +2, which is no trit.
//   interleaved codes  GGUF's I2_S: blocks of B = 128 or 64 weights in B / 4 bytes. The weight
//                   l * B / 4 + m of a block is in bits 6 - 2l and 7 - 2l of byte m.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "tfmbs/format/error.hpp"

#pragma GCC visibility push(default)

namespace tfmbs {

inline constexpr std::size_t kStridedRows = 4;  // outputs of a packed row
[[nodiscard]] constexpr std::size_t strided_rows(std::size_t outputs) noexcept {
  return (outputs + kStridedRows - 1) / kStridedRows;
}

// The trits, [outputs, depth]. Errors: kEncoding with the offset of the first byte that holds code
// 3 for one of these outputs; kInvalidArgument for a wrong size.
Status unpack_strided_codes(std::span<const std::uint8_t> packed, std::size_t outputs,
                            std::size_t depth, std::span<std::int8_t> trits);
// And back. Errors: kInvalidArgument for a wrong size, or with the index of the first value that is
// no trit.
Status pack_strided_codes(std::span<const std::int8_t> trits, std::size_t outputs,
                          std::size_t depth, std::span<std::uint8_t> packed);

enum class TernaryBlocks : std::uint8_t { kTq1, kTq2, kQ2, kQ2Wide };
inline constexpr std::size_t kBlockTrits = 256;  // of TQ1_0 and TQ2_0
[[nodiscard]] constexpr std::size_t block_trits(TernaryBlocks kind) noexcept {
  return kind == TernaryBlocks::kQ2 ? 64 : kind == TernaryBlocks::kQ2Wide ? 128 : kBlockTrits;
}
[[nodiscard]] constexpr std::size_t block_bytes(TernaryBlocks kind) noexcept {
  return kind == TernaryBlocks::kTq1 ? 54 : block_trits(kind) / 4 + 2;
}
// "tq1_0", "tq2_0", "q2_0", and "q2_0_g128" for Q2_0 with 128 weights per block. Errors:
// kInvalidArgument.
Result<TernaryBlocks> parse_ternary_blocks(std::string_view name);

// Trits, and scales, one per block. A block with scale 0 has trits of 0.
// Errors: kEncoding with the byte offset of the first code 3, byte that no quantizer writes
// (TQ1_0), or scale that is not finite; kInvalidArgument for a wrong size.
Status unpack_ternary_blocks(TernaryBlocks kind, std::span<const std::uint8_t> bytes,
                             std::span<std::int8_t> trits, std::span<float> scales);
// And back. A block without weights other than 0 gets scale 0. Errors: kInvalidArgument for a wrong
// size, or with the index of the first value that is no trit, or of the first block whose scale
// fp16 does not hold.
Status pack_ternary_blocks(TernaryBlocks kind, std::span<const std::int8_t> trits,
                           std::span<const float> scales, std::span<std::uint8_t> bytes);

// The trits of I2_S, block 128 or 64. Errors: kEncoding with the offset of the first byte that
// holds code 3; kInvalidArgument for another block, or a wrong size.
Status unpack_interleaved_codes(std::span<const std::uint8_t> bytes, std::size_t block,
                                std::span<std::int8_t> trits);

}  // namespace tfmbs

#pragma GCC visibility pop
