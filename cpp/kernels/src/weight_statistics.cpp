#include "tfmbs/kernels/weight_statistics.hpp"

#include <algorithm>
#include <cmath>

#include "scalar.hpp"

namespace tfmbs::kernels {
namespace {

constexpr std::size_t kLanes = 8;

template <FloatType kType>
AbsoluteSum absolute_sum_of(const void* row, std::size_t columns, double threshold) noexcept {
  double lanes[kLanes] = {};
  std::uint64_t counts[kLanes] = {};
  const auto add = [&](std::size_t lane, std::size_t i) {
    const double magnitude = std::fabs(load_double(row, kType, i));
    // False for a NaN; adding +0.0 leaves a lane, which is never -0.0, as it is.
    const bool enters = magnitude > threshold;
    lanes[lane] += enters ? magnitude : 0.0;
    counts[lane] += enters ? 1 : 0;
  };
  std::size_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) add(lane, i + lane);
  }
  for (std::size_t lane = 0; i < columns; ++lane, ++i) add(lane, i);

  AbsoluteSum result;
  result.sum = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
               ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
  for (const std::uint64_t count : counts) result.count += count;
  return result;
}

}  // namespace

AbsoluteSum absolute_sum(const void* row, FloatType type, std::size_t columns,
                         double threshold) noexcept {
  switch (type) {
    case FloatType::kFloat64:
      return absolute_sum_of<FloatType::kFloat64>(row, columns, threshold);
    case FloatType::kBFloat16:
      return absolute_sum_of<FloatType::kBFloat16>(row, columns, threshold);
    case FloatType::kFloat16:
      return absolute_sum_of<FloatType::kFloat16>(row, columns, threshold);
    case FloatType::kFloat32:
      break;
  }
  return absolute_sum_of<FloatType::kFloat32>(row, columns, threshold);
}

}  // namespace tfmbs::kernels
