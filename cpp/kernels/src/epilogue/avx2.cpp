// Eight outputs at a time in fp32; a row's last eight may overlap those before, for what is
// computed twice is the same. Rows of fewer, and fp64, are left to the portable code, which
// computes the same bits.
#include <immintrin.h>

#include "operations.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::avx2 {
namespace {

constexpr std::size_t kLanes = 8;

inline __m256 load_doubles(const double* from) {
  return _mm256_set_m128(_mm256_cvtpd_ps(_mm256_loadu_pd(from + 4)),
                         _mm256_cvtpd_ps(_mm256_loadu_pd(from)));
}

template <FloatType kType>
inline __m256 load_bias(const void* bias, std::size_t n) {
  if constexpr (kType == FloatType::kFloat64) {
    return load_doubles(static_cast<const double*>(bias) + n);
  } else if constexpr (kType == FloatType::kFloat32) {
    return _mm256_loadu_ps(static_cast<const float*>(bias) + n);
  } else {
    const __m128i halves =
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(byte_offset(bias, n * 2)));
    if constexpr (kType == FloatType::kFloat16) return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
}

// NaNs must already be the one NaN: it has room for bf16's rounding to be added to its bits.
inline void store(void* row, FloatType type, std::size_t n, __m256 value) {
  switch (type) {
    case FloatType::kFloat32:
      _mm256_storeu_ps(static_cast<float*>(row) + n, value);
      return;
    case FloatType::kFloat64:
      _mm256_storeu_pd(static_cast<double*>(row) + n,
                       _mm256_cvtps_pd(_mm256_castps256_ps128(value)));
      _mm256_storeu_pd(static_cast<double*>(row) + n + 4,
                       _mm256_cvtps_pd(_mm256_extractf128_ps(value, 1)));
      return;
    case FloatType::kFloat16:
      _mm_storeu_si128(reinterpret_cast<__m128i*>(byte_offset(row, n * 2)),
                       _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
      return;
    case FloatType::kBFloat16: {
      const __m256i bits = _mm256_castps_si256(value);
      const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
      const __m256i rounded = _mm256_srli_epi32(
          _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF))), 16);
      const __m256i halves = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0xD8);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(byte_offset(row, n * 2)),
                       _mm256_castsi256_si128(halves));
      return;
    }
  }
}

template <bool kScaled>
inline __m256 load_sums(const EpilogueArgs& args, std::size_t at) {
  if constexpr (kScaled) {
    return _mm256_loadu_ps(static_cast<const float*>(args.scaled_accumulators) + at);
  }
  const auto* from = reinterpret_cast<const __m256i*>(args.accumulators + at);
  return _mm256_cvtepi32_ps(_mm256_loadu_si256(from));
}

template <FloatType kBias, bool kScaled>
void narrow(const EpilogueArgs& args) {
  const __m256 nan =
      _mm256_set1_ps(float_from_bits(static_cast<std::uint32_t>(kFloat32Format.nan)));
  const bool scale_each = args.output_scales != nullptr && args.output_scale_step != 0;
  const float shared_scale = args.output_scales != nullptr && !scale_each
                                 ? static_cast<float>(args.output_scales[0])
                                 : 1.0F;
  for (std::size_t m = 0; m < args.rows; ++m) {
    void* out = byte_offset(args.out, m * args.out_stride * bytes_of(args.out_type));
    const float row_scale =
        args.row_scales != nullptr ? static_cast<float>(args.row_scales[m]) : 1.0F;
    const bool nan_row = args.nan_rows != nullptr && args.nan_rows[m] != 0;
    const __m256 factor = _mm256_set1_ps(row_scale);
    const __m256 shared = _mm256_set1_ps(row_scale * shared_scale);
    for (std::size_t begin = 0; begin < args.outputs; begin += kLanes) {
      const std::size_t last = args.outputs - kLanes;
      const std::size_t n = begin < last ? begin : last;
      const __m256 scale =
          scale_each ? _mm256_mul_ps(factor, load_doubles(args.output_scales + n)) : shared;
      __m256 value =
          _mm256_mul_ps(load_sums<kScaled>(args, m * args.accumulator_stride + n), scale);
      if (args.bias != nullptr) value = _mm256_add_ps(value, load_bias<kBias>(args.bias, n));
      // Of two zeros, and where one is a NaN, the instruction gives the second operand.
      if (args.relu) value = _mm256_max_ps(_mm256_setzero_ps(), value);
      __m256 is_nan = _mm256_cmp_ps(value, value, _CMP_UNORD_Q);
      if (nan_row) {
        is_nan = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
      } else if (args.nan_outputs != nullptr) {
        const __m256i flags = _mm256_cvtepu8_epi32(
            _mm_loadl_epi64(reinterpret_cast<const __m128i*>(args.nan_outputs + n)));
        is_nan = _mm256_or_ps(
            is_nan, _mm256_castsi256_ps(_mm256_cmpgt_epi32(flags, _mm256_setzero_si256())));
      }
      store(out, args.out_type, n, _mm256_blendv_ps(value, nan, is_nan));
    }
  }
}

}  // namespace

void epilogue(const EpilogueArgs& args) noexcept {
  if (args.wide || args.outputs < kLanes) return portable::epilogue(args);
  with_type(args.bias_type, [&](auto type) {
    args.scaled_accumulators != nullptr ? narrow<type.value, true>(args)
                                        : narrow<type.value, false>(args);
  });
}

}  // namespace tfmbs::kernels::avx2
