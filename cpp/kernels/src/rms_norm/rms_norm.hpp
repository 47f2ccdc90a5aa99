// rms_norm in lanes: compiled once an instruction set.
#pragma once

#include "float_lanes.hpp"

namespace tfmbs::kernels {
namespace {

// The correctly rounded square root, without a call of a std:: template.
inline float square_root(float x) { return __builtin_sqrtf(x); }

template <FloatType kType>
inline void rms_norm_as(const RmsNormArgs& args) {
  const std::size_t whole = args.size / kFloatLanes * kFloatLanes;
  const std::size_t rest = args.size - whole;
  Lanes sums[4] = {};
  std::size_t i = 0;
  for (; i + 4 * kFloatLanes <= whole; i += 4 * kFloatLanes) {
    for (std::size_t part = 0; part < 4; ++part) {
      const Lanes x = load_lanes<kType>(args.input, i + part * kFloatLanes);
      sums[part] += x * x;
    }
  }
  for (; i < whole; i += kFloatLanes) {
    const Lanes x = load_lanes<kType>(args.input, i);
    sums[0] += x * x;
  }
  if (rest != 0) {
    const Lanes x = load_rest<kType>(args.input, whole, rest);
    sums[0] += x * x;
  }
  const float sum = sum_of_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
  const float mean = sum / static_cast<float>(args.size);
  const Lanes inverse = all_lanes(1.0F / square_root(mean + args.epsilon));
  for (i = 0; i < whole; i += kFloatLanes) {
    const Lanes x = rounded_to<kType>(load_lanes<kType>(args.input, i) * inverse);
    store_lanes<kType>(args.out, i, x * load_lanes<kType>(args.weight, i));
  }
  if (rest != 0) {
    const Lanes x = rounded_to<kType>(load_rest<kType>(args.input, whole, rest) * inverse);
    store_rest<kType>(args.out, whole, rest, x * load_rest<kType>(args.weight, whole, rest));
  }
}

inline void rms_norm_in_lanes(const RmsNormArgs& args) {
  args.type == FloatType::kFloat32 ? rms_norm_as<FloatType::kFloat32>(args)
                                   : rms_norm_as<FloatType::kBFloat16>(args);
}

}  // namespace
}  // namespace tfmbs::kernels
