#include "tfmbs/kernels/cache.hpp"

#include <cstdint>
#include <initializer_list>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__unix__)
#include <unistd.h>
#endif

namespace tfmbs::kernels {
namespace {

constexpr std::size_t kUnknown = std::size_t{8} << 20;

// Not sysconf on x86: the C library adds the caches of all complexes up.
#if defined(__x86_64__)

// Intel's leaf 4 and AMD's 0x8000001D have one form: a cache a subleaf, until one of type 0.
std::size_t largest_cache(std::uint32_t leaf) noexcept {
  constexpr std::uint32_t kInstruction = 2;
  std::size_t largest = 0;
  for (std::uint32_t subleaf = 0; subleaf < 16; ++subleaf) {
    std::uint32_t a = 0;
    std::uint32_t b = 0;
    std::uint32_t c = 0;
    std::uint32_t d = 0;
    if (__get_cpuid_count(leaf, subleaf, &a, &b, &c, &d) == 0 || (a & 31) == 0) break;
    if ((a & 31) == kInstruction) continue;
    const std::size_t ways = (b >> 22) + std::size_t{1};
    const std::size_t partitions = (b >> 12 & 0x3FF) + std::size_t{1};
    const std::size_t line = (b & 0xFFF) + std::size_t{1};
    const std::size_t bytes = ways * partitions * line * (c + std::size_t{1});
    largest = bytes > largest ? bytes : largest;
  }
  return largest;
}

std::size_t ask() noexcept {
  const std::size_t intel = largest_cache(4);
  return intel != 0 ? intel : largest_cache(0x8000001D);
}

#elif defined(__APPLE__)

std::size_t ask() noexcept {
  for (const char* name : {"hw.l3cachesize", "hw.perflevel0.l2cachesize", "hw.l2cachesize"}) {
    std::uint64_t bytes = 0;
    std::size_t size = sizeof bytes;
    if (sysctlbyname(name, &bytes, &size, nullptr, 0) == 0 && bytes != 0) return bytes;
  }
  return 0;
}

#elif defined(_SC_LEVEL3_CACHE_SIZE)

std::size_t ask() noexcept {
  for (const int name : {_SC_LEVEL3_CACHE_SIZE, _SC_LEVEL2_CACHE_SIZE}) {
    if (const long bytes = sysconf(name); bytes > 0) return static_cast<std::size_t>(bytes);
  }
  return 0;
}

#else

std::size_t ask() noexcept { return 0; }

#endif

}  // namespace

std::size_t last_level_cache_bytes() noexcept {
  static const std::size_t bytes = [] {
    const std::size_t said = ask();
    return said != 0 ? said : kUnknown;
  }();
  return bytes;
}

}  // namespace tfmbs::kernels
