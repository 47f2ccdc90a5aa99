#include "cpu.hpp"

#ifdef TFMBS_KERNELS_ARM64
#if defined(__APPLE__)
#include <sys/sysctl.h>

#include <cstddef>
#elif defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#endif

namespace tfmbs::kernels {

bool cpu_always() noexcept { return true; }

#ifdef TFMBS_KERNELS_X86

// The builtin counts a vector extension only where the operating system saves its registers
// (XGETBV), so a true answer means that the instructions may run.
bool cpu_has_avx2() noexcept {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") &&
         __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2");
}

bool cpu_has_avxvnni() noexcept { return cpu_has_avx2() && __builtin_cpu_supports("avxvnni"); }

bool cpu_has_avx512() noexcept {
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vpopcntdq") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bitalg") &&
         __builtin_cpu_supports("avx512vnni");
}

#endif

#ifdef TFMBS_KERNELS_ARM64

#if defined(__APPLE__)
bool cpu_has_dot_product() noexcept {
  int has = 0;
  std::size_t size = sizeof has;
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, nullptr, 0) == 0 && has != 0;
}
#elif defined(__linux__)
bool cpu_has_dot_product() noexcept { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
#else
// No way to ask is known here.
bool cpu_has_dot_product() noexcept { return false; }
#endif

#endif

}  // namespace tfmbs::kernels
