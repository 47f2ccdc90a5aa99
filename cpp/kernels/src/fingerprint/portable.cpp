#include "fingerprint/lanes.hpp"
#include "operations.hpp"

namespace tfmbs::kernels::portable {

std::uint64_t fingerprint(const void* data, std::size_t bytes) noexcept {
  const unsigned char* cursor = byte_offset(data, 0);
  std::uint64_t lanes[kHashLanes];
  start_lanes(lanes);
  for (std::size_t left = bytes; left >= kHashStride; left -= kHashStride, cursor += kHashStride) {
    for (std::size_t i = 0; i < kHashLanes; ++i) {
      lanes[i] = absorb(lanes[i], load_word(cursor + 8 * i));
    }
  }
  return finish_lanes(lanes, cursor, bytes);
}

}  // namespace tfmbs::kernels::portable
