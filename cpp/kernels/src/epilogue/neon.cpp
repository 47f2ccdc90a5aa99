// Four outputs at a time in fp32. The last outputs of a row, and fp64, are left to the portable
// code, which computes the same bits.
#include <arm_neon.h>

#include "operations.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::neon {
namespace {

constexpr std::size_t kLanes = 4;

inline float32x4_t load_doubles(const double* from) {
  return vcvt_high_f32_f64(vcvt_f32_f64(vld1q_f64(from)), vld1q_f64(from + 2));
}

template <FloatType kType>
inline float32x4_t load_bias(const void* bias, std::size_t n) {
  if constexpr (kType == FloatType::kFloat64) {
    return load_doubles(static_cast<const double*>(bias) + n);
  } else if constexpr (kType == FloatType::kFloat32) {
    return vld1q_f32(static_cast<const float*>(bias) + n);
  } else {
    const uint8x8_t halves = vld1_u8(byte_offset(bias, n * 2));
    if constexpr (kType == FloatType::kFloat16) return vcvt_f32_f16(vreinterpret_f16_u8(halves));
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(halves), 16));
  }
}

// NaNs must already be the one NaN: it has room for bf16's rounding to be added to its bits.
inline void store(void* row, FloatType type, std::size_t n, float32x4_t value) {
  switch (type) {
    case FloatType::kFloat32:
      vst1q_f32(static_cast<float*>(row) + n, value);
      return;
    case FloatType::kFloat64:
      vst1q_f64(static_cast<double*>(row) + n, vcvt_f64_f32(vget_low_f32(value)));
      vst1q_f64(static_cast<double*>(row) + n + 2, vcvt_high_f64_f32(value));
      return;
    case FloatType::kFloat16:
      vst1_u8(byte_offset(row, n * 2), vreinterpret_u8_f16(vcvt_f16_f32(value)));
      return;
    case FloatType::kBFloat16: {
      const uint32x4_t bits = vreinterpretq_u32_f32(value);
      const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
      const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7FFF)));
      vst1_u8(byte_offset(row, n * 2), vreinterpret_u8_u16(vshrn_n_u32(rounded, 16)));
      return;
    }
  }
}

// All ones where a flag is set.
inline uint32x4_t load_flags(const std::uint8_t* flags) {
  std::uint32_t four = 0;
  std::memcpy(&four, flags, sizeof four);
  const uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
  const uint32x4_t wider = vmovl_u16(vget_low_u16(wide));
  return vtstq_u32(wider, wider);
}

template <bool kScaled>
inline float32x4_t load_sums(const EpilogueArgs& args, std::size_t at) {
  if constexpr (kScaled) {
    return vld1q_f32(static_cast<const float*>(args.scaled_accumulators) + at);
  }
  return vcvtq_f32_s32(vld1q_s32(args.accumulators + at));
}

template <FloatType kBias, bool kScaled>
void narrow(const EpilogueArgs& args, std::size_t outputs) {
  const float32x4_t nan =
      vdupq_n_f32(float_from_bits(static_cast<std::uint32_t>(kFloat32Format.nan)));
  const bool scale_each = args.output_scales != nullptr && args.output_scale_step != 0;
  const float shared_scale = args.output_scales != nullptr && !scale_each
                                 ? static_cast<float>(args.output_scales[0])
                                 : 1.0F;
  for (std::size_t m = 0; m < args.rows; ++m) {
    void* out = byte_offset(args.out, m * args.out_stride * bytes_of(args.out_type));
    const float row_scale =
        args.row_scales != nullptr ? static_cast<float>(args.row_scales[m]) : 1.0F;
    const bool nan_row = args.nan_rows != nullptr && args.nan_rows[m] != 0;
    const float32x4_t factor = vdupq_n_f32(row_scale);
    const float32x4_t shared = vdupq_n_f32(row_scale * shared_scale);
    for (std::size_t n = 0; n < outputs; n += kLanes) {
      const float32x4_t scale =
          scale_each ? vmulq_f32(factor, load_doubles(args.output_scales + n)) : shared;
      float32x4_t value =
          vmulq_f32(load_sums<kScaled>(args, m * args.accumulator_stride + n), scale);
      if (args.bias != nullptr) value = vaddq_f32(value, load_bias<kBias>(args.bias, n));
      // Not a maximum, which might make a zero of -0.0.
      if (args.relu) {
        value = vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(value), vcltzq_f32(value)));
      }
      uint32x4_t is_number = vceqq_f32(value, value);
      if (nan_row) {
        is_number = vdupq_n_u32(0);
      } else if (args.nan_outputs != nullptr) {
        is_number = vbicq_u32(is_number, load_flags(args.nan_outputs + n));
      }
      store(out, args.out_type, n, vbslq_f32(is_number, value, nan));
    }
  }
}

}  // namespace

void epilogue(const EpilogueArgs& args) noexcept {
  const std::size_t whole = args.wide ? 0 : args.outputs / kLanes * kLanes;
  if (whole > 0) {
    with_type(args.bias_type, [&](auto type) {
      args.scaled_accumulators != nullptr ? narrow<type.value, true>(args, whole)
                                          : narrow<type.value, false>(args, whole);
    });
  }
  if (whole == args.outputs) return;
  EpilogueArgs rest = args;
  rest.outputs -= whole;
  if (rest.scaled_accumulators != nullptr) {
    const std::size_t bytes = rest.wide ? sizeof(double) : sizeof(float);
    rest.scaled_accumulators = byte_offset(rest.scaled_accumulators, whole * bytes);
  } else {
    rest.accumulators += whole;
  }
  if (rest.output_scales != nullptr) rest.output_scales += whole * rest.output_scale_step;
  if (rest.bias != nullptr) rest.bias = byte_offset(rest.bias, whole * bytes_of(rest.bias_type));
  if (rest.nan_outputs != nullptr) rest.nan_outputs += whole;
  rest.out = byte_offset(rest.out, whole * bytes_of(rest.out_type));
  portable::epilogue(rest);
}

}  // namespace tfmbs::kernels::neon
