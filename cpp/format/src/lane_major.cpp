#include "tfmbs/format/lane_major.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "tables.hpp"
#include "tfmbs/format/pt5.hpp"

namespace tfmbs {
namespace {

using DepthBits = std::array<std::uint64_t, kTritsPerWord>;  // 64 depths of each lane of a word

// 64 bits of a plane from trit k on. `plane` is the row, or the row + kPlaneWords. Bits beyond the
// row's last block are 0.
[[nodiscard]] std::uint64_t plane_bits(const std::uint64_t* plane, std::size_t k,
                                       std::size_t blocks) noexcept {
  const std::size_t shift = k % 64;
  std::uint64_t bits = plane[bit_plane_word(k)] >> shift;
  const std::size_t next = k - shift + 64;
  if (shift != 0 && next < blocks * kBlockTrits) {
    bits |= plane[bit_plane_word(next)] << (64 - shift);
  }
  return bits;
}

// The PT-5 bytes of five lanes at eight depths, a depth a byte. A digit is nonzero + negative, at
// most 2, and a byte's sum at most 242: nothing carries into the next depth.
[[nodiscard]] std::uint64_t codes_of_eight_depths(const std::uint64_t* nonzero,
                                                  const std::uint64_t* negative,
                                                  unsigned shift) noexcept {
  std::uint64_t codes = 0;
  for (std::size_t i = kTritsPerByte; i-- > 0;) {
    codes = codes * 3 + kBitsToBytes[nonzero[i] >> shift & 0xFF] +
            kBitsToBytes[negative[i] >> shift & 0xFF];
  }
  return codes;
}

}  // namespace

void pack_lane_major(BitPlaneView weights, LaneBlock block,
                     std::span<std::uint32_t> words) noexcept {
  const std::size_t stride = pt5_words(block.lanes);
  const std::size_t rows_left =
      block.output < weights.rows ? weights.rows - block.output : std::size_t{0};
  const std::size_t lanes = std::min(block.lanes, rows_left);
  const std::size_t blocks = weights.blocks();

  for (std::size_t w = 0; w < stride; ++w) {
    const std::size_t first = w * kTritsPerWord;
    const std::size_t count = first < lanes ? std::min(kTritsPerWord, lanes - first) : 0;
    for (std::size_t d = 0; d < block.depths; d += 64) {
      DepthBits nonzero{};
      DepthBits negative{};
      for (std::size_t i = 0; i < count; ++i) {
        const std::uint64_t* row = weights.row(block.output + first + i);
        nonzero[i] = plane_bits(row, block.depth + d, blocks);
        negative[i] = plane_bits(row + kPlaneWords, block.depth + d, blocks);
      }
      const std::size_t depths = std::min<std::size_t>(64, block.depths - d);
      for (std::size_t e = 0; e < depths; e += 8) {
        const auto shift = static_cast<unsigned>(e);
        const std::uint64_t low = codes_of_eight_depths(&nonzero[0], &negative[0], shift);
        const std::uint64_t middle = codes_of_eight_depths(&nonzero[5], &negative[5], shift);
        const std::uint64_t high = codes_of_eight_depths(&nonzero[10], &negative[10], shift);
        const std::size_t eight = std::min<std::size_t>(8, depths - e);
        std::uint32_t* out = words.data() + (d + e) * stride + w;
        for (std::size_t i = 0; i < eight; ++i) {
          const std::size_t at = 8 * i;
          out[i * stride] = static_cast<std::uint32_t>(
              (low >> at & 0xFF) | (middle >> at & 0xFF) << 8 | (high >> at & 0xFF) << 16);
        }
      }
    }
  }
}

Status unpack_lane_major(std::span<const std::uint32_t> words, LaneBlock block,
                         BitPlaneMatrix& weights) {
  const std::size_t stride = pt5_words(block.lanes);
  const bool size_fits = stride == 0 || block.depths == 0
                             ? words.empty()
                             : words.size() % stride == 0 && words.size() / stride == block.depths;
  if (!size_fits) {
    return Error{ErrorCode::kInvalidArgument, "unpack_lane_major: " + std::to_string(words.size()) +
                                                  " words given for " +
                                                  std::to_string(block.depths) + " depths of " +
                                                  std::to_string(block.lanes) + " lanes"};
  }
  if (block.depth > weights.trits() || block.depths > weights.trits() - block.depth) {
    return Error{ErrorCode::kInvalidArgument,
                 "unpack_lane_major: depths " + std::to_string(block.depth) + " to " +
                     std::to_string(block.depth + block.depths) + " of a matrix of " +
                     std::to_string(weights.trits())};
  }
  if (Status status = check_fabric_words(words, 0); !status) {
    return status;
  }
  const std::size_t rows_left =
      block.output < weights.rows() ? weights.rows() - block.output : std::size_t{0};
  const std::size_t lanes = std::min(block.lanes, rows_left);

  // Lanes that have no row must be zero: checked before anything is written.
  for (std::size_t w = lanes / kTritsPerWord; w < stride; ++w) {
    const std::size_t first = w * kTritsPerWord;
    const std::size_t used = first < lanes ? lanes - first : 0;
    for (std::size_t d = 0; d < block.depths; ++d) {
      const std::size_t at = d * stride + w;
      if (word_masks(words[at]).nonzero >> used != 0) {
        return Error{ErrorCode::kEncoding,
                     "unpack_lane_major: word " + std::to_string(at) + " (depth " +
                         std::to_string(block.depth + d) + ") has a weight beyond lane " +
                         std::to_string(lanes) + ", the last that has a row",
                     kBytesPerWord * at};
      }
    }
  }

  for (std::size_t w = 0; w < stride; ++w) {
    const std::size_t first = w * kTritsPerWord;
    const std::size_t count = first < lanes ? std::min(kTritsPerWord, lanes - first) : 0;
    std::size_t d = 0;
    while (d < block.depths) {
      // Up to the next 64-bit word of the planes.
      const std::size_t k = block.depth + d;
      const std::size_t depths = std::min(64 - k % 64, block.depths - d);
      DepthBits nonzero{};
      DepthBits negative{};
      for (std::size_t e = 0; e < depths; ++e) {
        const std::uint64_t masks = joined_masks(words[(d + e) * stride + w]);
        for (std::size_t i = 0; i < kTritsPerWord; ++i) {
          nonzero[i] |= (masks >> i & 1) << e;
          negative[i] |= (masks >> (16 + i) & 1) << e;
        }
      }
      const std::uint64_t keep =
          ~((depths == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << depths) - 1) << (k % 64));
      for (std::size_t i = 0; i < count; ++i) {
        std::uint64_t* row = weights.row(block.output + first + i) + bit_plane_word(k);
        row[0] = (row[0] & keep) | nonzero[i] << (k % 64);
        row[kPlaneWords] = (row[kPlaneWords] & keep) | negative[i] << (k % 64);
      }
      d += depths;
    }
  }
  return {};
}

void pack_activations(BitPlaneView row, std::size_t depth, std::size_t depths,
                      std::span<std::uint32_t> words) noexcept {
  const std::size_t blocks = row.blocks();
  for (std::size_t d = 0, j = 0; d < depths; d += kTritsPerWord, ++j) {
    const std::size_t count = std::min(kTritsPerWord, depths - d);
    const std::uint64_t mask = (std::uint64_t{1} << count) - 1;
    const std::uint64_t nonzero = plane_bits(row.words, depth + d, blocks) & mask;
    const std::uint64_t negative = plane_bits(row.words + kPlaneWords, depth + d, blocks) & mask;
    words[j] = word_of(static_cast<std::uint32_t>(nonzero), static_cast<std::uint32_t>(negative));
  }
}

}  // namespace tfmbs
