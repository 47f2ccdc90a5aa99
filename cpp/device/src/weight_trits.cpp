#include "tfmbs/device/weight_trits.hpp"

#include <atomic>

namespace tfmbs::device {

std::uint64_t next_weight_serial() noexcept {
  static std::atomic<std::uint64_t> serial{0};
  return ++serial;
}

}  // namespace tfmbs::device
