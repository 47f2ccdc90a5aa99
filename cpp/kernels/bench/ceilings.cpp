#include "ceilings.hpp"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>

namespace {

constexpr std::size_t kSteps = 4096;
constexpr std::size_t kSums = 12;  // enough to hide the latency

}  // namespace

// Registers are named, and all of a step is one asm, so that nothing of it goes through memory.
// vzeroall comes first: what the registers held before could make float products slow (denormals).

std::size_t tfmbs_int8_peak_avx512() noexcept {
  if (!__builtin_cpu_supports("avx512vnni")) return 0;
  std::size_t steps = kSteps;  // NOLINT(misc-const-correctness): the asm counts it down
  asm volatile(
      "vzeroall\n"
      "1:\n"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm0\n"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm1\n"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm2\n"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm3\n"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm4\n"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm5\n"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm6\n"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm7\n"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm8\n"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm9\n"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm10\n"
      "vpdpbusd %%zmm12, %%zmm12, %%zmm11\n"
      "dec %0\n"
      "jnz 1b\n"
      "vzeroupper\n"
      : "+r"(steps)
      :
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
        "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  return kSteps * kSums * 64;
}

std::size_t tfmbs_int8_peak_avxvnni() noexcept {
  if (!__builtin_cpu_supports("avxvnni")) return 0;
  std::size_t steps = kSteps;  // NOLINT(misc-const-correctness): the asm counts it down
  asm volatile(
      "vzeroall\n"
      "1:\n"
      "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm0\n"
      "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm1\n"
      "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm2\n"
      "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm3\n"
      "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm4\n"
      "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm5\n"
      "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm6\n"
      "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm7\n"
      "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm8\n"
      "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm9\n"
      "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm10\n"
      "%{vex%} vpdpbusd %%ymm12, %%ymm12, %%ymm11\n"
      "dec %0\n"
      "jnz 1b\n"
      "vzeroupper\n"
      : "+r"(steps)
      :
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
        "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  return kSteps * kSums * 32;
}

std::size_t tfmbs_int8_peak_avx2() noexcept {
  if (!__builtin_cpu_supports("avx2")) return 0;
  std::size_t steps = kSteps;  // NOLINT(misc-const-correctness): the asm counts it down
  asm volatile(
      "vzeroall\n"
      "1:\n"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm6\n"
      "vpmaddwd %%ymm13, %%ymm6, %%ymm6\n"
      "vpaddd %%ymm6, %%ymm0, %%ymm0\n"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm7\n"
      "vpmaddwd %%ymm13, %%ymm7, %%ymm7\n"
      "vpaddd %%ymm7, %%ymm1, %%ymm1\n"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm8\n"
      "vpmaddwd %%ymm13, %%ymm8, %%ymm8\n"
      "vpaddd %%ymm8, %%ymm2, %%ymm2\n"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm9\n"
      "vpmaddwd %%ymm13, %%ymm9, %%ymm9\n"
      "vpaddd %%ymm9, %%ymm3, %%ymm3\n"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm10\n"
      "vpmaddwd %%ymm13, %%ymm10, %%ymm10\n"
      "vpaddd %%ymm10, %%ymm4, %%ymm4\n"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm11\n"
      "vpmaddwd %%ymm13, %%ymm11, %%ymm11\n"
      "vpaddd %%ymm11, %%ymm5, %%ymm5\n"
      "dec %0\n"
      "jnz 1b\n"
      "vzeroupper\n"
      : "+r"(steps)
      :
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
        "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  return kSteps * (kSums / 2) * 32;
}

std::size_t tfmbs_ternary_peak_avx2() noexcept {
  if (!__builtin_cpu_supports("avx2")) return 0;
  std::size_t steps = kSteps;  // NOLINT(misc-const-correctness): the asm counts it down
  asm volatile(
      "vzeroall\n"
      "1:\n"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm6\n"
      "vpaddw %%ymm6, %%ymm0, %%ymm0\n"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm7\n"
      "vpaddw %%ymm7, %%ymm1, %%ymm1\n"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm8\n"
      "vpaddw %%ymm8, %%ymm2, %%ymm2\n"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm9\n"
      "vpaddw %%ymm9, %%ymm3, %%ymm3\n"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm10\n"
      "vpaddw %%ymm10, %%ymm4, %%ymm4\n"
      "vpmaddubsw %%ymm12, %%ymm12, %%ymm11\n"
      "vpaddw %%ymm11, %%ymm5, %%ymm5\n"
      "dec %0\n"
      "jnz 1b\n"
      "vzeroupper\n"
      : "+r"(steps)
      :
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
        "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  return kSteps * (kSums / 2) * 32;
}

std::size_t tfmbs_ternary_peak_avx512() noexcept {
  if (!__builtin_cpu_supports("avx512vpopcntdq")) return 0;
  std::size_t steps = kSteps;  // NOLINT(misc-const-correctness): the asm counts it down
  asm volatile(
      "vzeroall\n"
      "1:\n"
      "vpandq %%zmm14, %%zmm14, %%zmm4\n"
      "vpternlogq $0x28, %%zmm14, %%zmm14, %%zmm5\n"
      "vpopcntq %%zmm4, %%zmm4\n"
      "vpopcntq %%zmm5, %%zmm5\n"
      "vpaddq %%zmm4, %%zmm0, %%zmm0\n"
      "vpaddq %%zmm5, %%zmm12, %%zmm12\n"
      "vpandq %%zmm14, %%zmm14, %%zmm6\n"
      "vpternlogq $0x28, %%zmm14, %%zmm14, %%zmm7\n"
      "vpopcntq %%zmm6, %%zmm6\n"
      "vpopcntq %%zmm7, %%zmm7\n"
      "vpaddq %%zmm6, %%zmm1, %%zmm1\n"
      "vpaddq %%zmm7, %%zmm13, %%zmm13\n"
      "vpandq %%zmm14, %%zmm14, %%zmm8\n"
      "vpternlogq $0x28, %%zmm14, %%zmm14, %%zmm9\n"
      "vpopcntq %%zmm8, %%zmm8\n"
      "vpopcntq %%zmm9, %%zmm9\n"
      "vpaddq %%zmm8, %%zmm2, %%zmm2\n"
      "vpaddq %%zmm9, %%zmm12, %%zmm12\n"
      "vpandq %%zmm14, %%zmm14, %%zmm10\n"
      "vpternlogq $0x28, %%zmm14, %%zmm14, %%zmm11\n"
      "vpopcntq %%zmm10, %%zmm10\n"
      "vpopcntq %%zmm11, %%zmm11\n"
      "vpaddq %%zmm10, %%zmm3, %%zmm3\n"
      "vpaddq %%zmm11, %%zmm13, %%zmm13\n"
      "dec %0\n"
      "jnz 1b\n"
      "vzeroupper\n"
      : "+r"(steps)
      :
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
        "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  return kSteps * 4 * 512;
}

std::size_t tfmbs_fp32_peak_avx512() noexcept {
  if (!__builtin_cpu_supports("avx512f")) return 0;
  std::size_t steps = kSteps;  // NOLINT(misc-const-correctness): the asm counts it down
  asm volatile(
      "vzeroall\n"
      "1:\n"
      "vfmadd231ps %%zmm12, %%zmm12, %%zmm0\n"
      "vfmadd231ps %%zmm12, %%zmm12, %%zmm1\n"
      "vfmadd231ps %%zmm12, %%zmm12, %%zmm2\n"
      "vfmadd231ps %%zmm12, %%zmm12, %%zmm3\n"
      "vfmadd231ps %%zmm12, %%zmm12, %%zmm4\n"
      "vfmadd231ps %%zmm12, %%zmm12, %%zmm5\n"
      "vfmadd231ps %%zmm12, %%zmm12, %%zmm6\n"
      "vfmadd231ps %%zmm12, %%zmm12, %%zmm7\n"
      "vfmadd231ps %%zmm12, %%zmm12, %%zmm8\n"
      "vfmadd231ps %%zmm12, %%zmm12, %%zmm9\n"
      "vfmadd231ps %%zmm12, %%zmm12, %%zmm10\n"
      "vfmadd231ps %%zmm12, %%zmm12, %%zmm11\n"
      "dec %0\n"
      "jnz 1b\n"
      "vzeroupper\n"
      : "+r"(steps)
      :
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
        "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  return kSteps * kSums * 16;
}

std::size_t tfmbs_fp32_peak_avx2() noexcept {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
  std::size_t steps = kSteps;  // NOLINT(misc-const-correctness): the asm counts it down
  asm volatile(
      "vzeroall\n"
      "1:\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm0\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm1\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm2\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm3\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm4\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm5\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm6\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm7\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm8\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm9\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm10\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm11\n"
      "dec %0\n"
      "jnz 1b\n"
      "vzeroupper\n"
      : "+r"(steps)
      :
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
        "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  return kSteps * kSums * 8;
}

#endif

#if defined(__x86_64__)
namespace {
// Fetches nothing ahead: a loop that only reads is faster without (docs/kernel-internals.md).
__attribute__((target("avx2"))) std::uint64_t read_avx2(const unsigned char* data,
                                                        std::size_t bytes) noexcept {
  __m256i sums[4] = {};
  const auto* vectors = reinterpret_cast<const __m256i*>(data);
  for (std::size_t i = 0; i + 4 <= bytes / sizeof(__m256i); i += 4) {
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

std::uint64_t tfmbs_read(const void* data, std::size_t bytes) noexcept {
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
