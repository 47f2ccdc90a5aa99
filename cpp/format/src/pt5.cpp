#include "tfmbs/format/pt5.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "bytes.hpp"
#include "tables.hpp"
#include "tfmbs/format/text.hpp"

namespace tfmbs {
namespace {

// 3^i in byte 4-i: byte 4 of digits * kPowers is the sum of digit_i * 3^i. The bytes below it are
// partial sums of at most 2 * (3 + 9 + 27 + 81) = 240, so nothing carries into it.
constexpr std::uint64_t kPowers = 1ULL << 32 | 3ULL << 24 | 9ULL << 16 | 27ULL << 8 | 81ULL;
constexpr std::uint64_t kFiveBytes = 0xFFFFFFFFFF;

[[nodiscard]] constexpr std::uint8_t code_of(TritBytes trits) noexcept {
  const std::uint64_t digits = (trits.nonzero() + trits.negative()) & kFiveBytes;
  return static_cast<std::uint8_t>(digits * kPowers >> 32);
}

Error wrong_size(const char* what, std::size_t given, std::size_t trits) {
  return {ErrorCode::kInvalidArgument,
          std::string(what) + ": " + std::to_string(given) + " bytes given for " +
              std::to_string(trits) + " trits; " + std::to_string(pt5_bytes(trits)) + " needed"};
}

Error no_trit(std::span<const std::int8_t> trits) {
  const auto bad = std::find_if_not(trits.begin(), trits.end(), is_trit);
  const auto index = static_cast<std::uint64_t>(bad - trits.begin());
  return {ErrorCode::kInvalidArgument,
          "pack_pt5: value " + std::to_string(*bad) + " at index " + std::to_string(index) +
              " is no trit (-1, 0 or +1)",
          index};
}

Error encoding_fault(std::uint32_t byte, std::uint64_t offset, bool top_byte) {
  return {ErrorCode::kEncoding,
          "byte " + hex(byte) + " at offset " + std::to_string(offset) +
              (top_byte ? " is the top byte of a fabric word, which must be 0"
                        : " is no PT-5 code (0...242)"),
          offset};
}

// Not zero if and only if this is no fabric word. Adding 13 carries out of a byte from 243 on.
[[nodiscard]] constexpr std::uint32_t word_fault(std::uint32_t word) noexcept {
  const std::uint32_t outer = ((word & 0x00FF00FF) + 0x000D000D) & 0x01000100;
  const std::uint32_t middle = ((word & 0x0000FF00) + 0x00000D00) & 0x00010000;
  return outer | middle | (word & 0xFF000000);
}

}  // namespace

Status pack_pt5(std::span<const std::int8_t> trits, std::span<std::uint8_t> bytes) {
  if (bytes.size() != pt5_bytes(trits.size())) {
    return wrong_size("pack_pt5", bytes.size(), trits.size());
  }
  const std::size_t size = trits.size();
  std::size_t i = 0;
  bool valid = true;
  // Eight trits are read and five of them used, so the last few take the path below.
  for (; i + 8 <= size; i += kTritsPerByte) {
    const TritBytes group{load_bytes(trits.data() + i)};
    valid &= group.valid();
    bytes[i / kTritsPerByte] = code_of(group);
  }
  for (; i < size; i += kTritsPerByte) {
    std::int8_t tail[8] = {};
    std::memcpy(tail, trits.data() + i, std::min(size - i, kTritsPerByte));
    const TritBytes group{load_bytes(tail)};
    valid &= group.valid();
    bytes[i / kTritsPerByte] = code_of(group);
  }
  if (!valid) {
    return no_trit(trits);
  }
  return {};
}

Status unpack_pt5(std::span<const std::uint8_t> bytes, std::span<std::int8_t> trits) {
  if (bytes.size() != pt5_bytes(trits.size())) {
    return wrong_size("unpack_pt5", bytes.size(), trits.size());
  }
  std::uint8_t highest = 0;
  for (const std::uint8_t byte : bytes) {
    highest = std::max(highest, byte);
  }
  if (highest >= kPt5Codes) {
    const auto bad = std::find_if(bytes.begin(), bytes.end(),
                                  [](std::uint8_t byte) { return byte >= kPt5Codes; });
    return encoding_fault(*bad, static_cast<std::uint64_t>(bad - bytes.begin()), false);
  }
  const std::size_t size = trits.size();
  std::size_t i = 0;
  // Eight trits are written and five of them kept.
  for (; i + 8 <= size; i += kTritsPerByte) {
    store_bytes(trits.data() + i, kCodeToTrits[bytes[i / kTritsPerByte]]);
  }
  for (; i < size; i += kTritsPerByte) {
    std::int8_t tail[8];
    store_bytes(tail, kCodeToTrits[bytes[i / kTritsPerByte]]);
    std::memcpy(trits.data() + i, tail, std::min(size - i, kTritsPerByte));
  }
  return {};
}

Status check_fabric_words(std::span<const std::uint32_t> words, std::uint64_t base_offset) {
  std::uint32_t fault = 0;
  for (const std::uint32_t word : words) {
    fault |= word_fault(word);
  }
  if (fault == 0) {
    return {};
  }
  for (std::size_t i = 0; i < words.size(); ++i) {
    for (std::uint32_t b = 0; b < kBytesPerWord; ++b) {
      const std::uint32_t byte = words[i] >> (8 * b) & 0xFF;
      const bool top = b == kBytesPerWord - 1;
      if (byte >= (top ? 1 : kPt5Codes)) {
        return encoding_fault(byte, base_offset + kBytesPerWord * i + b, top);
      }
    }
  }
  return {};
}

WordMasks word_masks(std::uint32_t word) noexcept {
  const std::uint32_t masks = joined_masks(word);
  return {static_cast<std::uint16_t>(masks & 0x7FFF), static_cast<std::uint16_t>(masks >> 16)};
}

std::uint32_t word_from_masks(WordMasks masks) noexcept {
  return word_of(masks.nonzero, masks.negative);
}

}  // namespace tfmbs
