// What a CPU of 64-bit ARM and its operating system can run: cpu_has_<feature> for each feature
// that variants.json names. The compiler answers for x86's (__builtin_cpu_supports), which counts a
// vector extension only where the operating system saves its registers (XGETBV).
#pragma once

#if defined(__aarch64__)
#if defined(__APPLE__)
#include <sys/sysctl.h>

#include <cstddef>
#elif defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace tfmbs::kernels {

#if defined(__APPLE__)
inline bool cpu_has_dotprod() noexcept {
  int has = 0;
  std::size_t size = sizeof has;
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, nullptr, 0) == 0 && has != 0;
}
#elif defined(__linux__)
inline bool cpu_has_dotprod() noexcept { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
#else
// No way to ask is known here.
inline bool cpu_has_dotprod() noexcept { return false; }
#endif

}  // namespace tfmbs::kernels
#endif
