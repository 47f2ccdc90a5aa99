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
  double counts[kLanes] =
      {};  // as doubles, so that a lane stays in one vector type; exact below 2^53
  const auto add = [&](std::size_t lane, double value) {
    const double magnitude = std::fabs(value);
    // False for a NaN; adding +0.0 leaves a lane, which is never -0.0, as it is.
    lanes[lane] += magnitude > threshold ? magnitude : 0.0;
    counts[lane] += magnitude > threshold ? 1.0 : 0.0;
  };
  std::size_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) {
    double values[kLanes];
    for (std::size_t lane = 0; lane < kLanes; ++lane)
      values[lane] = load_double(row, kType, i + lane);
    for (std::size_t lane = 0; lane < kLanes; ++lane) add(lane, values[lane]);
  }
  for (std::size_t lane = 0; i < columns; ++lane, ++i) add(lane, load_double(row, kType, i));

  AbsoluteSum result;
  result.sum = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
               ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
  for (const double count : counts) result.count += static_cast<std::uint64_t>(count);
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
