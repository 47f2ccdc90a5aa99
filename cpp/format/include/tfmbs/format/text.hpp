// Numbers in error messages.
#pragma once

#include <cstdint>
#include <string>

#pragma GCC visibility push(default)

namespace tfmbs {

[[nodiscard]] inline std::string hex(std::uint64_t value) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string digits;
  do {
    digits.insert(digits.begin(), kDigits[value & 15]);
    value >>= 4;
  } while (value != 0);
  return "0x" + digits;
}

}  // namespace tfmbs

#pragma GCC visibility pop
