// What this CPU, and its operating system, can run: the one place that asks.
#pragma once

namespace tfmbs::kernels {

[[nodiscard]] bool cpu_always() noexcept;
// AVX2, F16C, POPCNT, BMI1, BMI2.
[[nodiscard]] bool cpu_has_avx2() noexcept;
// AVX2's and AVX-VNNI, the dot products of 256 bits: Alder Lake, Zen 5 and later.
[[nodiscard]] bool cpu_has_avxvnni() noexcept;
// AVX2's and AVX-512 F, BW, VL, DQ, VPOPCNTDQ, VBMI, BITALG, VNNI: Ice Lake, Zen 4 and later.
[[nodiscard]] bool cpu_has_avx512() noexcept;
// ARM's dot-product instructions (FEAT_DotProd): Cortex-A76, Apple M1 and later. 64-bit ARM always
// has the other vector instructions.
[[nodiscard]] bool cpu_has_dot_product() noexcept;

}  // namespace tfmbs::kernels
