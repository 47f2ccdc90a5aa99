#include "ceilings.hpp"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tfmbs::bench {
namespace {
// Bytes that are prefetched beyond those that are read, as in the kernels.
constexpr std::size_t kAhead = 4096;
}  // namespace

#if defined(__x86_64__)

constexpr std::size_t kSteps = 4096;
constexpr std::size_t kSums = 12;  // enough to hide the latency

std::size_t dot_products_avx512() noexcept {
  if (!__builtin_cpu_supports("avx512vnni")) return 0;
  for (std::size_t i = 0; i < kSteps; ++i) {
    asm volatile(
        "vpdpbusd %%zmm12, %%zmm12, %%zmm0\n vpdpbusd %%zmm12, %%zmm12, %%zmm1\n"
        "vpdpbusd %%zmm12, %%zmm12, %%zmm2\n vpdpbusd %%zmm12, %%zmm12, %%zmm3\n"
        "vpdpbusd %%zmm12, %%zmm12, %%zmm4\n vpdpbusd %%zmm12, %%zmm12, %%zmm5\n"
        "vpdpbusd %%zmm12, %%zmm12, %%zmm6\n vpdpbusd %%zmm12, %%zmm12, %%zmm7\n"
        "vpdpbusd %%zmm12, %%zmm12, %%zmm8\n vpdpbusd %%zmm12, %%zmm12, %%zmm9\n"
        "vpdpbusd %%zmm12, %%zmm12, %%zmm10\n vpdpbusd %%zmm12, %%zmm12, %%zmm11\n"
        :
        :
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
          "xmm11", "xmm12");
  }
  return kSteps * kSums * 64;
}

std::size_t dot_products_avx2() noexcept {
  if (!__builtin_cpu_supports("avx2")) return 0;
  for (std::size_t i = 0; i < kSteps; ++i) {
    asm volatile(
        "vpmaddubsw %%ymm12, %%ymm12, %%ymm6\n vpaddw %%ymm6, %%ymm0, %%ymm0\n"
        "vpmaddubsw %%ymm12, %%ymm12, %%ymm7\n vpaddw %%ymm7, %%ymm1, %%ymm1\n"
        "vpmaddubsw %%ymm12, %%ymm12, %%ymm8\n vpaddw %%ymm8, %%ymm2, %%ymm2\n"
        "vpmaddubsw %%ymm12, %%ymm12, %%ymm9\n vpaddw %%ymm9, %%ymm3, %%ymm3\n"
        "vpmaddubsw %%ymm12, %%ymm12, %%ymm10\n vpaddw %%ymm10, %%ymm4, %%ymm4\n"
        "vpmaddubsw %%ymm12, %%ymm12, %%ymm11\n vpaddw %%ymm11, %%ymm5, %%ymm5\n"
        :
        :
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
          "xmm11", "xmm12");
  }
  return kSteps * (kSums / 2) * 32;
}

#else

std::size_t dot_products_avx512() noexcept { return 0; }
std::size_t dot_products_avx2() noexcept { return 0; }

#endif

#if defined(__x86_64__)
namespace {
__attribute__((target("avx2"))) std::uint64_t read_avx2(const unsigned char* data,
                                                        std::size_t bytes) noexcept {
  __m256i sums[4] = {};
  const auto* vectors = reinterpret_cast<const __m256i*>(data);
  for (std::size_t i = 0; i + 4 <= bytes / sizeof(__m256i); i += 4) {
    _mm_prefetch(reinterpret_cast<const char*>(vectors + i) + kAhead, _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(vectors + i + 2) + kAhead, _MM_HINT_T0);
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 4; ++j) {
      sums[j] = _mm256_or_si256(sums[j], _mm256_loadu_si256(vectors + i + j));
    }
  }
  const __m256i all =
      _mm256_or_si256(_mm256_or_si256(sums[0], sums[1]), _mm256_or_si256(sums[2], sums[3]));
  return static_cast<std::uint64_t>(_mm256_movemask_epi8(all));
}
}  // namespace
#endif

std::uint64_t read(const void* data, std::size_t bytes) noexcept {
  const auto* from = static_cast<const unsigned char*>(data);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return read_avx2(from, bytes);
#endif
  std::uint64_t result = 0;
  for (std::size_t i = 0; i + 8 <= bytes; i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, from + i, sizeof word);
    result |= word;
  }
  return result;
}

}  // namespace tfmbs::bench
