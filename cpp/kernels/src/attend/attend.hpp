// attend in lanes: compiled once an instruction set. A key or value is made fp32 once and serves
// all heads of its group.
#pragma once

#include "float_lanes.hpp"

namespace tfmbs::kernels {
namespace {

// As fp32 in `row`, or where it lies.
template <FloatType kType>
[[gnu::always_inline]] inline const float* as_floats(const void* base, std::size_t at,
                                                     std::size_t size, float* row) {
  if constexpr (kType == FloatType::kFloat32) {
    return static_cast<const float*>(base) + at;
  } else {
    for (std::size_t k = 0; k < size; k += kFloatLanes) {
      store_lanes<FloatType::kFloat32>(row, k, load_lanes<kType>(base, at + k));
    }
    return row;
  }
}

[[gnu::always_inline]] inline float dot_lanes(const float* a, const float* b, std::size_t size) {
  Lanes even = {};
  Lanes odd = {};
  std::size_t k = 0;
  for (; k + 2 * kFloatLanes <= size; k += 2 * kFloatLanes) {
    even += load_lanes<FloatType::kFloat32>(a, k) * load_lanes<FloatType::kFloat32>(b, k);
    odd += load_lanes<FloatType::kFloat32>(a, k + kFloatLanes) *
           load_lanes<FloatType::kFloat32>(b, k + kFloatLanes);
  }
  if (k < size) {
    even += load_lanes<FloatType::kFloat32>(a, k) * load_lanes<FloatType::kFloat32>(b, k);
  }
  return sum_of_lanes(even + odd);
}

// Scores to weights that are not yet divided by their sum, which it gives. Past the last position
// they are 0.
inline float soften(float* scores, std::size_t positions) {
  float largest = scores[0];
  for (std::size_t p = 1; p < positions; ++p) {
    largest = scores[p] > largest ? scores[p] : largest;
  }
  // What sees no position attends to nothing, as in torch's scaled_dot_product_attention: -inf -
  // -inf is a NaN. A score that is a NaN makes the weights NaN.
  if (largest == -__builtin_inff()) {
    bool is_nan = false;
    for (std::size_t p = 0; p < positions; ++p) is_nan = is_nan || scores[p] != scores[p];
    if (!is_nan) {
      const std::size_t end = (positions + kFloatLanes - 1) / kFloatLanes * kFloatLanes;
      for (std::size_t p = 0; p < end; ++p) scores[p] = 0.0F;
      return 1.0F;
    }
  }
  Lanes sum = {};
  const std::size_t whole = positions / kFloatLanes * kFloatLanes;
  for (std::size_t p = 0; p < whole; p += kFloatLanes) {
    const Lanes weights = exp_lanes(load_lanes<FloatType::kFloat32>(scores, p) - largest);
    store_lanes<FloatType::kFloat32>(scores, p, weights);
    sum += weights;
  }
  if (const std::size_t rest = positions - whole; rest != 0) {
    Lanes weights = exp_lanes(load_rest<FloatType::kFloat32>(scores, whole, rest) - largest);
    const IntLanes lane{0, 1, 2, 3, 4, 5, 6, 7};
    weights = bits_as<Lanes>(bits_as<IntLanes>(weights) & (lane < static_cast<std::int32_t>(rest)));
    store_lanes<FloatType::kFloat32>(scores, whole, weights);
    sum += weights;
  }
  return sum_of_lanes(sum);
}

template <FloatType kType>
inline void attend_as(const AttendArgs& args) {
  const std::size_t size = args.head_size;
  const std::size_t stride = (args.positions + kFloatLanes - 1) / kFloatLanes * kFloatLanes;
  float rows[4][kMaxHeadSize];
  for (std::size_t p = 0; p < args.positions; ++p) {
    const float* key = as_floats<kType>(args.keys, p * args.key_stride, size, rows[0]);
    const float added = args.mask == nullptr ? 0.0F : args.mask[p];
    for (std::size_t h = 0; h < args.heads; ++h) {
      const float score = dot_lanes(args.queries + h * size, key, size) * args.scaling;
      args.scores[h * stride + p] = score + added;
    }
  }
  for (std::size_t h = 0; h < args.heads; ++h) {
    float* scores = args.scores + h * stride;
    const float inverse = 1.0F / soften(scores, args.positions);
    for (std::size_t p = 0; p < stride; p += kFloatLanes) {
      store_lanes<FloatType::kFloat32>(scores, p,
                                       load_lanes<FloatType::kFloat32>(scores, p) * inverse);
    }
    for (std::size_t k = 0; k < size; ++k) args.out[h * size + k] = 0.0F;
  }
  // Four positions at a time; the weights past the last are 0, and so are their rows.
  for (std::size_t p = 0; p < args.positions; p += 4) {
    const float* value[4];
    for (std::size_t i = 0; i < 4; ++i) {
      if (p + i < args.positions) {
        value[i] = as_floats<kType>(args.values, (p + i) * args.value_stride, size, rows[i]);
      } else {
        for (std::size_t k = 0; k < size; ++k) rows[i][k] = 0.0F;
        value[i] = rows[i];
      }
    }
    for (std::size_t h = 0; h < args.heads; ++h) {
      const float* weight = args.scores + h * stride + p;
      float* out = args.out + h * size;
      for (std::size_t k = 0; k < size; k += kFloatLanes) {
        const Lanes low = load_lanes<FloatType::kFloat32>(value[0], k) * weight[0] +
                          load_lanes<FloatType::kFloat32>(value[1], k) * weight[1];
        const Lanes high = load_lanes<FloatType::kFloat32>(value[2], k) * weight[2] +
                           load_lanes<FloatType::kFloat32>(value[3], k) * weight[3];
        store_lanes<FloatType::kFloat32>(out, k,
                                         load_lanes<FloatType::kFloat32>(out, k) + (low + high));
      }
    }
  }
}

inline void attend_in_lanes(const AttendArgs& args) {
  args.type == FloatType::kFloat32 ? attend_as<FloatType::kFloat32>(args)
                                   : attend_as<FloatType::kBFloat16>(args);
}

}  // namespace
}  // namespace tfmbs::kernels
