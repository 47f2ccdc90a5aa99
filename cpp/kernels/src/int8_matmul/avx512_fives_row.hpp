// One row times a full panel of fives, where lines come from memory and decoding sets the pace.
//
// How fast the 13 instructions of a line go is a matter of their order: Zen 4 chooses the pipe of
// an instruction when it dispatches it, by what it dispatched before. Compilers have an order of
// their own, and more copies than there are registers, so this loop is assembly: four lines at a
// time, in an order found by measuring (docs/kernel-internals.md has the figures, and those of the
// distances at which it fetches ahead).
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "int8_matmul/avx512_codes.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

// sums[c][i]: of line c's outputs, the codes of trit i times the activations, scaled by 4^i; the
// fifth trit is in sums[c][0]. The panel has 4 lines of 64 bytes a group and is aligned to 64;
// a group has 20 activations; groups >= 1. Reads nothing beyond (it fetches ahead).
inline __attribute__((always_inline)) void fives_row(const std::int8_t* activations,
                                                     const std::uint8_t* panel, std::size_t groups,
                                                     const FiveDecoder& decoder,
                                                     __m512i (&sums)[4][4]) {
  // zmm0-15 sums; 16-19 masks, 20-21 pairs, 22 fifths, 23 twos; 24-27 lines: bytes, then codes; in
  // turn 28-31, separated codes and fifth codes; k1 signs.
  __asm__ volatile(
      R"(
    # Begins line `new` and goes on with the three before it, `old1` to `old3`. At the start `code1`
    # and `code3` are codes of old3 and `fifth` is old1's; at the end `code3` and `free` are codes 1
    # and 3 of old2, `code1` is the new line's fifth, and `fifth` is free. act1, act3: where the
    # activations of old1 and old3 stand; sum1, sum3: their first sums.
    .macro tfmbs_step new, at, old1, act1, sum1, old2, old3, act3, s0, s1, s2, s3, code1, code3, free, fifth
      vmovdqa64 \at(%[panel]), %%zmm\new
      prefetcht1 \at+%c[far](%[panel])
      prefetcht0 \at+%c[near](%[panel])
      vpandd %%zmm16, %%zmm\old3, %%zmm\free
      vpdpbusd \act3+0(%[activations])%{1to16%}, %%zmm\free, %%zmm\s0
      vpandd %%zmm18, %%zmm\old3, %%zmm\old3
      vpsubb %%zmm\old2, %%zmm23, %%zmm\old2 %{%%k1%}
      vpmovb2m %%zmm\old1, %%k1
      vpermi2b %%zmm21, %%zmm20, %%zmm\old1
      vpdpbusd \act3+8(%[activations])%{1to16%}, %%zmm\old3, %%zmm\s2
      vpandd %%zmm19, %%zmm\old2, %%zmm\free
      vpdpbusd \act3+4(%[activations])%{1to16%}, %%zmm\code1, %%zmm\s1
      vpermb %%zmm22, %%zmm\new, %%zmm\code1
      vpdpbusd \act3+12(%[activations])%{1to16%}, %%zmm\code3, %%zmm\s3
      vpandd %%zmm17, %%zmm\old2, %%zmm\code3
      vpdpbusd \act1+16(%[activations])%{1to16%}, %%zmm\fifth, %%zmm\sum1
    .endm
    # A line's codes 0 and 2, and their products.
    .macro tfmbs_even_codes line, s0, s2
      vpandd %%zmm16, %%zmm\line, %%zmm30
      vpandd %%zmm18, %%zmm\line, %%zmm\line
      vpdpbusd -20(%[activations])%{1to16%}, %%zmm30, %%zmm\s0
      vpdpbusd -12(%[activations])%{1to16%}, %%zmm\line, %%zmm\s2
    .endm
    # Codes 1 and 3, separated.
    .macro tfmbs_odd_codes s1, s3
      vpdpbusd -16(%[activations])%{1to16%}, %%zmm28, %%zmm\s1
      vpdpbusd -8(%[activations])%{1to16%}, %%zmm29, %%zmm\s3
    .endm
    # Negates a line and separates its codes 1 and 3.
    .macro tfmbs_negate line, code1, code3
      vpsubb %%zmm\line, %%zmm23, %%zmm\line %{%%k1%}
      vpandd %%zmm17, %%zmm\line, %%zmm\code1
      vpandd %%zmm19, %%zmm\line, %%zmm\code3
    .endm
    .irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
      vpxord %%zmm\i, %%zmm\i, %%zmm\i
    .endr
    vmovdqa64 0(%[decoder]), %%zmm16
    vmovdqa64 64(%[decoder]), %%zmm17
    vmovdqa64 128(%[decoder]), %%zmm18
    vmovdqa64 192(%[decoder]), %%zmm19
    vmovdqa64 256(%[decoder]), %%zmm20
    vmovdqa64 320(%[decoder]), %%zmm21
    vmovdqa64 384(%[decoder]), %%zmm22
    vmovdqa64 448(%[decoder]), %%zmm23

    # The loop fetches ahead of each line that it begins, and these three are begun here: what is not
    # fetched is waited for.
    .irp at, 0, 64, 128
      prefetcht1 \at+%c[far](%[panel])
      prefetcht0 \at+%c[near](%[panel])
    .endr
    vmovdqa64 0(%[panel]), %%zmm24
    vpermb %%zmm22, %%zmm24, %%zmm28
    vpdpbusd 16(%[activations])%{1to16%}, %%zmm28, %%zmm0
    vpmovb2m %%zmm24, %%k1
    vpermi2b %%zmm21, %%zmm20, %%zmm24
    tfmbs_negate 24, 31, 28
    vmovdqa64 64(%[panel]), %%zmm25
    vpermb %%zmm22, %%zmm25, %%zmm30
    vpdpbusd 16(%[activations])%{1to16%}, %%zmm30, %%zmm4
    vpmovb2m %%zmm25, %%k1
    vpermi2b %%zmm21, %%zmm20, %%zmm25
    vmovdqa64 128(%[panel]), %%zmm26
    vpermb %%zmm22, %%zmm26, %%zmm30
    jmp 2f
    .p2align 6
  1:
    tfmbs_step 24,   0, 27, -20, 12, 26, 25, -20,  4,  5,  6,  7, 28, 29, 30, 31
    tfmbs_step 25,  64, 24,   0,  0, 27, 26, -20,  8,  9, 10, 11, 29, 30, 31, 28
    tfmbs_step 26, 128, 25,   0,  4, 24, 27, -20, 12, 13, 14, 15, 30, 31, 28, 29
  2:
    tfmbs_step 27, 192, 26,   0,  8, 25, 24,   0,  0,  1,  2,  3, 31, 28, 29, 30
    add $256, %[panel]
    add $20, %[activations]
    dec %[groups]
    jnz 1b

    tfmbs_odd_codes 5, 7
    tfmbs_even_codes 25, 4, 6
    tfmbs_negate 26, 28, 29
    tfmbs_odd_codes 9, 11
    tfmbs_even_codes 26, 8, 10
    vpmovb2m %%zmm27, %%k1
    vpermi2b %%zmm21, %%zmm20, %%zmm27
    tfmbs_negate 27, 28, 29
    tfmbs_odd_codes 13, 15
    tfmbs_even_codes 27, 12, 14
    vpdpbusd -4(%[activations])%{1to16%}, %%zmm31, %%zmm12
    .irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
      vmovdqa64 %%zmm\i, 64*\i(%[sums])
    .endr
    .purgem tfmbs_step
    .purgem tfmbs_even_codes
    .purgem tfmbs_odd_codes
    .purgem tfmbs_negate
  )"
      : [activations] "+&r"(activations), [panel] "+&r"(panel), [groups] "+&r"(groups)
      : [decoder] "r"(&decoder), [sums] "r"(&sums), [far] "i"(kFarAhead), [near] "i"(kNearAhead)
      : "memory", "cc", "k1", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
        "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17",
        "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27",
        "xmm28", "xmm29", "xmm30", "xmm31");
}

}  // namespace
}  // namespace tfmbs::kernels::avx512
