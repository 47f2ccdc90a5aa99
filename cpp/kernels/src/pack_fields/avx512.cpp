// A window of 32 fields, stored `copies` times over by as many word permutations.
#include <immintrin.h>

#include "field_windows.hpp"
#include "operations.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

struct Iota {
  alignas(64) std::uint16_t lanes[32];
  constexpr Iota() : lanes{} {
    for (std::uint16_t i = 0; i < 32; ++i) lanes[i] = i;
  }
};
constexpr Iota kIota;

inline __mmask32 low_lanes(std::size_t count) {
  return count >= 32 ? ~__mmask32{0} : (__mmask32{1} << count) - 1;
}

}  // namespace

void pack_fields(const PackFieldsArgs& args) noexcept {
  const FieldWindows windows(args.trits);
  const std::size_t row_words = blocks_of(args.trits) * kBlockWords;
  const std::size_t elements = (args.trits + kFieldTrits - 1) / kFieldTrits * args.copies;
  const __m128i shift = _mm_cvtsi32_si128(__builtin_ctzll(args.copies));
  const __m512i iota = _mm512_load_si512(kIota.lanes);
  for (std::size_t r = 0; r < args.rows; ++r) {
    const std::uint64_t* row = args.activations + r * row_words;
    std::uint16_t* out = args.fields + r * args.row_stride;
    for (std::size_t done = 0, w = 0; done < elements; ++w) {
      const __m512i fields = windows.window(row, w);
      for (std::size_t i = 0; i < args.copies && done < elements; ++i, done += kWindowFields) {
        const __m512i from = _mm512_srl_epi16(
            _mm512_add_epi16(iota, _mm512_set1_epi16(static_cast<short>(kWindowFields * i))),
            shift);
        _mm512_mask_storeu_epi16(out + done, low_lanes(elements - done),
                                 _mm512_permutexvar_epi16(from, fields));
      }
    }
  }
}

}  // namespace tfmbs::kernels::avx512
