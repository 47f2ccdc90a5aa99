// How much of a long random test runs, and from which seed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace tfmbs::testing {

// TFMBS_TEST_PERCENT: the share of a long random test's cases that runs. Below 100, as for emulated
// CPUs and sanitizers, code that variants share is tested with one of them.
inline std::size_t test_percent() {
  const char* text = std::getenv("TFMBS_TEST_PERCENT");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 100;
}
inline std::size_t case_count(std::size_t all) { return (all * test_percent() + 99) / 100; }

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)  // GCC
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
inline constexpr bool kSanitized =
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
inline constexpr bool kSanitized = false;
#endif

// One seed a case; TFMBS_TEST_SEED moves them all. A failure prints the case's seed.
inline std::uint64_t case_seed(std::uint64_t index) {
  const char* text = std::getenv("TFMBS_TEST_SEED");
  const std::uint64_t base = text != nullptr ? std::strtoull(text, nullptr, 10) : 20240229;
  return base * 1000003 + index;
}

}  // namespace tfmbs::testing
