// Sixteen outputs at a time in fp32, eight in fp64. A wide result that is rounded to less than fp64
// is rare, and left to the portable code.
#include <immintrin.h>

#include "operations.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr int kNearestEven = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

inline __m512 join(__m256 low, __m256 high) {
  return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}

inline __m512 load_doubles(const double* from, __mmask16 mask) {
  return join(_mm512_cvtpd_ps(_mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), from)),
              _mm512_cvtpd_ps(_mm512_maskz_loadu_pd(static_cast<__mmask8>(mask >> 8), from + 8)));
}

template <FloatType kType>
inline __m512 load_bias(const void* bias, std::size_t n, __mmask16 mask) {
  if constexpr (kType == FloatType::kFloat64) {
    return load_doubles(static_cast<const double*>(bias) + n, mask);
  } else if constexpr (kType == FloatType::kFloat32) {
    return _mm512_maskz_loadu_ps(mask, byte_offset(bias, n * 4));
  } else {
    const __m256i halves = _mm256_maskz_loadu_epi16(mask, byte_offset(bias, n * 2));
    if constexpr (kType == FloatType::kFloat16) return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
}

// NaNs must already be the one NaN: it has room for bf16's rounding to be added to its bits.
inline void store(void* row, FloatType type, std::size_t n, __mmask16 mask, __m512 value) {
  switch (type) {
    case FloatType::kFloat32:
      _mm512_mask_storeu_ps(byte_offset(row, n * 4), mask, value);
      return;
    case FloatType::kFloat64:
      _mm512_mask_storeu_pd(byte_offset(row, n * 8), static_cast<__mmask8>(mask),
                            _mm512_cvtps_pd(_mm512_castps512_ps256(value)));
      _mm512_mask_storeu_pd(byte_offset(row, n * 8 + 64), static_cast<__mmask8>(mask >> 8),
                            _mm512_cvtps_pd(_mm512_extractf32x8_ps(value, 1)));
      return;
    case FloatType::kFloat16:
      _mm256_mask_storeu_epi16(byte_offset(row, n * 2), mask,
                               _mm512_maskz_cvtps_ph(mask, value, kNearestEven));
      return;
    case FloatType::kBFloat16: {
      const __m512i bits = _mm512_castps_si512(value);
      const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
      const __m512i rounded =
          _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
      _mm256_mask_storeu_epi16(byte_offset(row, n * 2), mask,
                               _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
      return;
    }
  }
}

inline __mmask16 nan_mask(const EpilogueArgs& args, std::size_t m, std::size_t n, __mmask16 mask) {
  if (args.nan_rows != nullptr && args.nan_rows[m] != 0) return 0xFFFF;
  if (args.nan_outputs == nullptr) return 0;
  const __m128i flags = _mm_maskz_loadu_epi8(mask, args.nan_outputs + n);
  return _mm_test_epi8_mask(flags, flags);
}

template <bool kScaled>
inline __m512 load_sums(const EpilogueArgs& args, std::size_t at, __mmask16 mask) {
  if constexpr (kScaled) {
    return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(args.scaled_accumulators) + at);
  }
  return _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(mask, args.accumulators + at));
}
inline __m512d load_wide_sums(const EpilogueArgs& args, std::size_t at, __mmask8 mask) {
  if (args.scaled_accumulators != nullptr) {
    return _mm512_maskz_loadu_pd(mask, static_cast<const double*>(args.scaled_accumulators) + at);
  }
  return _mm512_cvtepi32_pd(_mm256_maskz_loadu_epi32(mask, args.accumulators + at));
}

template <FloatType kBias, bool kScaled>
void narrow(const EpilogueArgs& args) {
  const __m512 nan =
      _mm512_set1_ps(float_from_bits(static_cast<std::uint32_t>(kFloat32Format.nan)));
  const bool scale_each = args.output_scales != nullptr && args.output_scale_step != 0;
  const float shared_scale = args.output_scales != nullptr && !scale_each
                                 ? static_cast<float>(args.output_scales[0])
                                 : 1.0F;
  for (std::size_t m = 0; m < args.rows; ++m) {
    void* out = byte_offset(args.out, m * args.out_stride * bytes_of(args.out_type));
    const float row_scale =
        args.row_scales != nullptr ? static_cast<float>(args.row_scales[m]) : 1.0F;
    const __m512 factor = _mm512_set1_ps(row_scale);
    const __m512 shared = _mm512_set1_ps(row_scale * shared_scale);
    for (std::size_t n = 0; n < args.outputs; n += 16) {
      const std::size_t left = args.outputs - n;
      const auto mask = static_cast<__mmask16>(left < 16 ? (1U << left) - 1 : 0xFFFFU);
      const __m512 scale =
          scale_each ? _mm512_mul_ps(factor, load_doubles(args.output_scales + n, mask)) : shared;
      __m512 value =
          _mm512_mul_ps(load_sums<kScaled>(args, m * args.accumulator_stride + n, mask), scale);
      if (args.bias != nullptr) value = _mm512_add_ps(value, load_bias<kBias>(args.bias, n, mask));
      // Of two zeros, and where one is a NaN, the instruction gives the second operand.
      if (args.relu) value = _mm512_max_ps(_mm512_setzero_ps(), value);
      const __mmask16 unordered = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
      value = _mm512_mask_mov_ps(value, unordered | nan_mask(args, m, n, mask), nan);
      store(out, args.out_type, n, mask, value);
    }
  }
}

inline __m512d load_wide_bias(const void* bias, FloatType type, std::size_t n, __mmask8 mask) {
  switch (type) {
    case FloatType::kFloat64:
      return _mm512_maskz_loadu_pd(mask, byte_offset(bias, n * 8));
    case FloatType::kBFloat16:
      return _mm512_cvtps_pd(
          _mm512_castps512_ps256(load_bias<FloatType::kBFloat16>(bias, n, mask)));
    case FloatType::kFloat16:
      return _mm512_cvtps_pd(_mm512_castps512_ps256(load_bias<FloatType::kFloat16>(bias, n, mask)));
    case FloatType::kFloat32:
      break;
  }
  return _mm512_cvtps_pd(_mm512_castps512_ps256(load_bias<FloatType::kFloat32>(bias, n, mask)));
}

void wide(const EpilogueArgs& args) {
  const __m512d nan = _mm512_set1_pd(double_from_bits(kFloat64Format.nan));
  const bool scale_each = args.output_scales != nullptr && args.output_scale_step != 0;
  const double shared_scale =
      args.output_scales != nullptr && !scale_each ? args.output_scales[0] : 1.0;
  for (std::size_t m = 0; m < args.rows; ++m) {
    auto* out = static_cast<double*>(args.out) + m * args.out_stride;
    const double row_scale = args.row_scales != nullptr ? args.row_scales[m] : 1.0;
    const __m512d factor = _mm512_set1_pd(row_scale);
    const __m512d shared = _mm512_set1_pd(row_scale * shared_scale);
    for (std::size_t n = 0; n < args.outputs; n += 8) {
      const std::size_t left = args.outputs - n;
      const auto mask = static_cast<__mmask8>(left < 8 ? (1U << left) - 1 : 0xFFU);
      const __m512d scale =
          scale_each ? _mm512_mul_pd(factor, _mm512_maskz_loadu_pd(mask, args.output_scales + n))
                     : shared;
      __m512d value =
          _mm512_mul_pd(load_wide_sums(args, m * args.accumulator_stride + n, mask), scale);
      if (args.bias != nullptr) {
        value = _mm512_add_pd(value, load_wide_bias(args.bias, args.bias_type, n, mask));
      }
      if (args.relu) value = _mm512_max_pd(_mm512_setzero_pd(), value);
      const __mmask8 unordered = _mm512_cmp_pd_mask(value, value, _CMP_UNORD_Q);
      const auto forced = static_cast<__mmask8>(nan_mask(args, m, n, mask));
      value = _mm512_mask_mov_pd(value, unordered | forced, nan);
      _mm512_mask_storeu_pd(out + n, mask, value);
    }
  }
}

}  // namespace

void epilogue(const EpilogueArgs& args) noexcept {
  if (args.wide) {
    return args.out_type == FloatType::kFloat64 ? wide(args) : portable::epilogue(args);
  }
  with_type(args.bias_type, [&](auto type) {
    args.scaled_accumulators != nullptr ? narrow<type.value, true>(args)
                                        : narrow<type.value, false>(args);
  });
}

}  // namespace tfmbs::kernels::avx512
