// Fields become 16-bit lanes (field_windows.hpp), so one population count and one maximum give
// the cycles of 32 fields.
#include <immintrin.h>

#include "field_windows.hpp"
#include "operations.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

// A lane's count grows by at most 15 a window; vpmaddwd, which widens it, takes it as signed.
constexpr std::size_t kWindows = 32767 / kFieldTrits;

class Sum {
 public:
  void add(__m512i counts) { narrow_ = _mm512_add_epi16(narrow_, counts); }
  void widen() {
    wide_ = _mm512_add_epi32(wide_, _mm512_madd_epi16(narrow_, _mm512_set1_epi16(1)));
    narrow_ = _mm512_setzero_si512();
  }
  __m512i take() {
    widen();
    const __m512i sum = wide_;
    wide_ = _mm512_setzero_si512();
    return sum;
  }

 private:
  __m512i narrow_{_mm512_setzero_si512()};
  __m512i wide_{_mm512_setzero_si512()};
};

inline std::uint32_t total(__m512i lanes) {
  return static_cast<std::uint32_t>(_mm512_reduce_add_epi32(lanes));
}

}  // namespace

void field_count(const FieldCountArgs& args) noexcept {
  const FieldWindows windows(args.trits);
  const __m512i one = _mm512_set1_epi16(1);
  const std::size_t row_words = blocks_of(args.trits) * kBlockWords;
  const std::size_t chunk_fields = (args.chunk_depth + kFieldTrits - 1) / kFieldTrits;
  const std::size_t row_fields = (args.trits + kFieldTrits - 1) / kFieldTrits;
  std::uint32_t* cycles_out = args.cycles;
  Sum cycles;
  Sum steps;
  __m512i all_steps = _mm512_setzero_si512();
  for (std::size_t r = 0; r < args.rows; ++r) {
    const std::uint64_t* row = args.activations + r * row_words;
    for (std::size_t begin = 0; begin < row_fields; begin += chunk_fields) {
      const std::size_t end = row_fields - begin < chunk_fields ? row_fields : begin + chunk_fields;
      std::size_t room = kWindows;
      for (std::size_t w = begin / kWindowFields; w * kWindowFields < end; ++w) {
        const std::size_t first = w * kWindowFields;
        __mmask32 inside = ~__mmask32{0};
        if (first < begin) inside <<= begin - first;
        if (end - first < kWindowFields) inside &= (__mmask32{1} << (end - first)) - 1;
        const __m512i counts = _mm512_maskz_popcnt_epi16(inside, windows.window(row, w));
        steps.add(counts);
        cycles.add(_mm512_maskz_max_epu16(inside, counts, one));
        if (--room == 0) {
          steps.widen();
          cycles.widen();
          room = kWindows;
        }
      }
      *cycles_out++ = total(cycles.take());
      const __m512i chunk_steps = steps.take();
      all_steps = _mm512_add_epi64(
          all_steps, _mm512_add_epi64(_mm512_and_si512(chunk_steps, _mm512_set1_epi64(0xFFFFFFFF)),
                                      _mm512_srli_epi64(chunk_steps, 32)));
    }
  }
  *args.steps += static_cast<std::uint64_t>(_mm512_reduce_add_epi64(all_steps));
}

}  // namespace tfmbs::kernels::avx512
