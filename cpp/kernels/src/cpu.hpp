// What this CPU, and its operating system, can run: the one place that asks.
#pragma once

namespace tfmbs::kernels {

[[nodiscard]] bool cpu_always() noexcept;
// AVX2, F16C, POPCNT, BMI1, BMI2.
[[nodiscard]] bool cpu_has_avx2() noexcept;
// The above and AVX-512 F, BW, VL, DQ, VPOPCNTDQ, VBMI, BITALG, VNNI: Ice Lake, Zen 4 and later.
[[nodiscard]] bool cpu_has_avx512() noexcept;

}  // namespace tfmbs::kernels
