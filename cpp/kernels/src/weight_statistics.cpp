#include "tfmbs/kernels/weight_statistics.hpp"

#include <cstdint>

#include "scalar.hpp"

namespace tfmbs::kernels {
namespace {

// The eight lanes of the contract as four of the compilers' own portable vectors, of the size that
// every 64-bit machine has. Each lane's additions keep their order.
constexpr std::size_t kLanes = 8;
constexpr std::size_t kPairs = kLanes / 2;
using Pair = double __attribute__((vector_size(16)));
using PairBits = long long __attribute__((vector_size(16)));
using SinglePair = float __attribute__((vector_size(8)));

template <FloatType kType>
Pair load_pair(const void* row, std::size_t i) noexcept {
  if constexpr (kType == FloatType::kFloat32) {
    SinglePair singles;
    std::memcpy(&singles, byte_offset(row, i * sizeof(float)), sizeof singles);
    return __builtin_convertvector(singles, Pair);
  } else {
    return Pair{load_double(row, kType, i), load_double(row, kType, i + 1)};
  }
}

struct Lanes {
  Pair sums[kPairs] = {};
  Pair counts[kPairs] = {};  // exact below 2^53

  // An element that is not present is a zero that counts as none.
  void add(std::size_t pair, Pair values, Pair present, Pair threshold) noexcept {
    const Pair zero = {};
    const PairBits magnitude_bits = {INT64_MAX, INT64_MAX};
    const auto magnitudes =
        reinterpret_cast<Pair>(reinterpret_cast<PairBits>(values) & magnitude_bits);
    // False for a NaN. Adding a zero of either sign leaves a sum, which is never -0.0, as it is.
    const auto enters = magnitudes > threshold;
    sums[pair] += enters ? magnitudes : zero;
    counts[pair] += enters ? present : zero;
  }
};

template <FloatType kType>
AbsoluteSum absolute_sum_of(const void* row, std::size_t columns, double threshold) noexcept {
  const Pair limits = {threshold, threshold};
  const Pair ones = {1.0, 1.0};
  Lanes lanes;
  std::size_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) {
    for (std::size_t p = 0; p < kPairs; ++p) {
      lanes.add(p, load_pair<kType>(row, i + 2 * p), ones, limits);
    }
  }
  for (std::size_t p = 0; i < columns; ++p, i += 2) {
    const bool both = i + 1 < columns;
    const Pair values = {load_double(row, kType, i), both ? load_double(row, kType, i + 1) : 0.0};
    lanes.add(p, values, Pair{1.0, both ? 1.0 : 0.0}, limits);
  }

  const auto sum = [&](std::size_t lane) { return lanes.sums[lane / 2][lane % 2]; };
  AbsoluteSum result;
  result.sum = ((sum(0) + sum(4)) + (sum(2) + sum(6))) + ((sum(1) + sum(5)) + (sum(3) + sum(7)));
  for (const Pair counts : lanes.counts) {
    result.count += static_cast<std::uint64_t>(counts[0]) + static_cast<std::uint64_t>(counts[1]);
  }
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
