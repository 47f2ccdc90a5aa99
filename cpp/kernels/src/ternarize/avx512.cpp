// Floats are compared as integers (scalar.hpp says why): one AND, one or two compares into mask
// registers and one maximum, which finds a NaN at the end of the row.
#include <immintrin.h>

#include "operations.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

struct Word {
  std::uint64_t nonzero;
  std::uint64_t negative;
};

// One type's instructions: how 64 elements become two words. `valid` has a bit for each element
// that may be read; the others read as zero.
template <FloatType kType>
struct Lanes;

template <>
struct Lanes<FloatType::kFloat32> {
  static __m512i broadcast(std::uint64_t v) { return _mm512_set1_epi32(static_cast<int>(v)); }
  static __m512i load(std::uint64_t valid, const unsigned char* from) {
    return _mm512_maskz_loadu_epi32(static_cast<__mmask16>(valid), from);
  }
  static __m512i maximum(__m512i a, __m512i b) { return _mm512_max_epu32(a, b); }
  static std::uint64_t above(__m512i a, __m512i b) { return _mm512_cmpgt_epu32_mask(a, b); }
  static std::uint64_t negative(__m512i a) { return _mm512_movepi32_mask(a); }
};

template <>
struct Lanes<FloatType::kFloat64> {
  static __m512i broadcast(std::uint64_t v) { return _mm512_set1_epi64(static_cast<long long>(v)); }
  static __m512i load(std::uint64_t valid, const unsigned char* from) {
    return _mm512_maskz_loadu_epi64(static_cast<__mmask8>(valid), from);
  }
  static __m512i maximum(__m512i a, __m512i b) { return _mm512_max_epu64(a, b); }
  static std::uint64_t above(__m512i a, __m512i b) { return _mm512_cmpgt_epu64_mask(a, b); }
  static std::uint64_t negative(__m512i a) { return _mm512_movepi64_mask(a); }
};

template <>
struct Lanes<FloatType::kFloat16> {
  static __m512i broadcast(std::uint64_t v) { return _mm512_set1_epi16(static_cast<short>(v)); }
  static __m512i load(std::uint64_t valid, const unsigned char* from) {
    return _mm512_maskz_loadu_epi16(static_cast<__mmask32>(valid), from);
  }
  static __m512i maximum(__m512i a, __m512i b) { return _mm512_max_epu16(a, b); }
  static std::uint64_t above(__m512i a, __m512i b) { return _mm512_cmpgt_epu16_mask(a, b); }
  static std::uint64_t negative(__m512i a) { return _mm512_movepi16_mask(a); }
};
template <>
struct Lanes<FloatType::kBFloat16> : Lanes<FloatType::kFloat16> {};

template <FloatType kType>
struct Row {
  using L = Lanes<kType>;
  static constexpr std::size_t kBytes = float_bytes(kType);
  static constexpr std::size_t kCount = 64 / kBytes;  // elements a register

  __m512i magnitude_bits;
  __m512i threshold;
  __m512i infinity;
  __m512i largest;

  template <bool kNanIsZero>
  inline __attribute__((always_inline)) Word convert(const unsigned char* from,
                                                     std::uint64_t valid) {
    Word word{0, 0};
    for (std::size_t i = 0; i < 64; i += kCount) {
      const __m512i bits = L::load(valid >> i, from + i * kBytes);
      const __m512i magnitude = _mm512_and_si512(bits, magnitude_bits);
      largest = L::maximum(largest, magnitude);
      std::uint64_t set = L::above(magnitude, threshold);
      if (kNanIsZero) set &= ~L::above(magnitude, infinity);
      word.nonzero |= set << i;
      word.negative |= L::negative(bits) << i;
    }
    word.negative &= word.nonzero;
    return word;
  }

  template <bool kNanIsZero>
  void convert_row(const unsigned char* row, std::size_t columns, std::uint64_t* planes) {
    std::size_t k = 0;
    for (; k + 64 <= columns; k += 64) {
      store(planes, k, convert<kNanIsZero>(row + k * kBytes, ~std::uint64_t{0}));
    }
    if (k < columns) {
      const std::uint64_t valid = (std::uint64_t{1} << (columns - k)) - 1;
      store(planes, k, convert<kNanIsZero>(row + k * kBytes, valid));
      k += 64;
    }
    for (; k % kBlockTrits != 0; k += 64) store(planes, k, {0, 0});
  }

  static void store(std::uint64_t* planes, std::size_t k, Word word) {
    std::uint64_t* to = planes + word_of(k);
    to[0] = word.nonzero;
    to[kPlaneWords] = word.negative;
  }
};

template <FloatType kType>
void ternarize_as(const TernarizeArgs& args, FloatFormat format) {
  const std::size_t row_words = blocks_of(args.columns) * kBlockWords;
  Row<kType> row;
  row.magnitude_bits = Row<kType>::L::broadcast(format.sign - 1);
  row.infinity = Row<kType>::L::broadcast(format.infinity);
  for (std::size_t r = 0; r < args.rows; ++r) {
    const unsigned char* from = byte_offset(args.input, r * args.row_stride * Row<kType>::kBytes);
    std::uint64_t* planes = args.planes + r * row_words;
    row.threshold = Row<kType>::L::broadcast(
        threshold_magnitude(args.thresholds != nullptr ? args.thresholds[r] : 0.0, format));
    row.largest = _mm512_setzero_si512();
    row.template convert_row<false>(from, args.columns, planes);
    const bool nan = Row<kType>::L::above(row.largest, row.infinity) != 0;
    args.nan_rows[r] = nan ? 1 : 0;
    if (nan) row.template convert_row<true>(from, args.columns, planes);
  }
}

}  // namespace

void ternarize(const TernarizeArgs& args) noexcept {
  with_type(args.type, [&](auto type) { ternarize_as<type.value>(args, format_of(type.value)); });
}

}  // namespace tfmbs::kernels::avx512
