#include "tfmbs/format/bit_planes.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <string>

#include "aligned_memory.hpp"
#include "bytes.hpp"
#include "tables.hpp"

namespace tfmbs {
namespace {

[[nodiscard]] bool is_product(std::size_t size, std::size_t rows, std::size_t columns) noexcept {
  if (rows == 0 || columns == 0) {
    return size == 0;
  }
  return size % rows == 0 && size / rows == columns;
}

Error wrong_size(const char* what, std::size_t given, std::size_t rows, std::size_t columns) {
  return {ErrorCode::kInvalidArgument, std::string(what) + ": " + std::to_string(given) +
                                           " trits given for " + std::to_string(rows) +
                                           " rows of " + std::to_string(columns)};
}

}  // namespace

int BitPlaneView::trit(std::size_t r, std::size_t k) const noexcept {
  const std::uint64_t* nonzero = row(r) + bit_plane_word(k);
  const std::size_t bit = k % 64;
  if ((nonzero[0] >> bit & 1) == 0) {
    return 0;
  }
  return (nonzero[kPlaneWords] >> bit & 1) != 0 ? -1 : 1;
}

void BitPlaneMatrix::AlignedDelete::operator()(std::uint64_t* words) const noexcept {
  release_aligned(words);
}

BitPlaneMatrix::BitPlaneMatrix(std::size_t rows, std::size_t trits) : rows_(rows), trits_(trits) {
  if (rows == 0 || trits == 0) {
    return;
  }
  const std::size_t row_bytes = row_words() * sizeof(std::uint64_t);
  if (trits > std::numeric_limits<std::size_t>::max() - kBlockTrits ||
      rows > std::numeric_limits<std::size_t>::max() / row_bytes) {
    throw std::bad_array_new_length();
  }
  auto* words = static_cast<std::uint64_t*>(allocate_aligned(rows * row_bytes));
  std::memset(words, 0, rows * row_bytes);
  words_.reset(words);
}

Result<BitPlaneMatrix> pack_bit_planes(std::span<const std::int8_t> trits, std::size_t rows,
                                       std::size_t columns) {
  if (!is_product(trits.size(), rows, columns)) {
    return wrong_size("pack_bit_planes", trits.size(), rows, columns);
  }
  BitPlaneMatrix planes(rows, columns);
  bool valid = true;
  for (std::size_t r = 0; r < rows; ++r) {
    const std::int8_t* from = trits.data() + r * columns;
    std::uint64_t* to = planes.row(r);
    for (std::size_t k = 0; k < columns; k += 64) {
      const std::size_t count = std::min<std::size_t>(64, columns - k);
      std::uint64_t nonzero = 0;
      std::uint64_t negative = 0;
      const auto add = [&](std::uint64_t bytes, std::size_t shift) {
        const TritBytes group{bytes};
        valid &= group.valid();
        nonzero |= gather_bits(group.nonzero()) << shift;
        negative |= gather_bits(group.negative()) << shift;
      };
      std::size_t i = 0;
      for (; i + 8 <= count; i += 8) {
        add(load_bytes(from + k + i), i);
      }
      if (i < count) {
        std::int8_t tail[8] = {};
        std::memcpy(tail, from + k + i, count - i);
        add(load_bytes(tail), i);
      }
      const std::size_t word = bit_plane_word(k);
      to[word] = nonzero;
      to[word + kPlaneWords] = negative;
    }
  }
  if (!valid) {
    const auto bad = std::find_if_not(trits.begin(), trits.end(), is_trit);
    const auto index = static_cast<std::uint64_t>(bad - trits.begin());
    return Error{ErrorCode::kInvalidArgument,
                 "pack_bit_planes: value " + std::to_string(*bad) + " at index " +
                     std::to_string(index) + " is no trit (-1, 0 or +1)",
                 index};
  }
  return planes;
}

Status unpack_bit_planes(BitPlaneView planes, std::span<std::int8_t> trits) {
  if (!is_product(trits.size(), planes.rows, planes.trits)) {
    return wrong_size("unpack_bit_planes", trits.size(), planes.rows, planes.trits);
  }
  for (std::size_t r = 0; r < planes.rows; ++r) {
    const std::uint64_t* from = planes.row(r);
    std::int8_t* to = trits.data() + r * planes.trits;
    for (std::size_t k = 0; k < planes.trits; k += 8) {
      const std::size_t word = bit_plane_word(k);
      const std::uint64_t nonzero = kBitsToBytes[from[word] >> (k % 64) & 0xFF];
      const std::uint64_t negative = kBitsToBytes[from[word + kPlaneWords] >> (k % 64) & 0xFF];
      const std::uint64_t group = nonzero | negative * 0xFF;
      if (k + 8 <= planes.trits) {
        store_bytes(to + k, group);
      } else {
        std::int8_t tail[8];
        store_bytes(tail, group);
        std::memcpy(to + k, tail, planes.trits - k);
      }
    }
  }
  return {};
}

}  // namespace tfmbs
