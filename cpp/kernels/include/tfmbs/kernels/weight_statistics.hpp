// What weight quantizers measure of weights: exact sums of magnitudes. A mean then depends on the
// weights alone: not on their order, their split over threads or processes, or the CPU.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tfmbs/kernels/kernels.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::kernels {

// The exact sum of |w| over the elements that entered, and how many they are. Plain data: copies
// are independent, and equal contents are equal words.
//
// The sum is a fixed-point number of 32-bit digits. Its unit is 2^-1074 for fp64 and 2^-149 for the
// other types, their smallest value, so nothing is ever rounded before sum().
class MagnitudeSum {
 public:
  explicit MagnitudeSum(FloatType type) noexcept;

  // Adds the elements with |w| > threshold (threshold < 0: all; NaN: none). NaN elements are left
  // out; infinite ones enter. `values` holds `count` elements of the sum's type.
  void add(const void* values, std::size_t count, double threshold = -1.0) noexcept;

  // The order and the grouping of merges do not change a bit of the result. Both sums must count in
  // the same unit: both fp64, or neither.
  void merge(const MagnitudeSum& other) noexcept { add_words(other.words()); }

  [[nodiscard]] std::uint64_t count() const noexcept {
    return static_cast<std::uint64_t>(words_[0]);
  }
  // Rounded once, to nearest, ties to even; infinite beyond fp64 or if an element is.
  [[nodiscard]] double sum() const noexcept;
  // sum() / count(), one division in fp64; 0 if nothing entered.
  [[nodiscard]] double mean() const noexcept {
    return count() == 0 ? 0.0 : sum() / static_cast<double>(count());
  }

  // The sum as integers that may be added element by element (an all-reduce with SUM of at most
  // 2^30 of them) before add_words takes them in: the count of elements, how many are infinite, and
  // the digits, the lowest first. 13 words; 70 for fp64.
  [[nodiscard]] std::span<const std::int64_t> words() const noexcept {
    return {words_.data(), kCounts + digits()};
  }
  // `words` has the size of words().
  void add_words(std::span<const std::int64_t> words) noexcept;

 private:
  // 2^-1074 to 2^1024, and 2^-149 to 2^128, of at most 2^63 elements.
  static constexpr std::size_t kWideDigits = 68;
  static constexpr std::size_t kNarrowDigits = 11;
  static constexpr std::size_t kCounts = 2;

  [[nodiscard]] std::size_t digits() const noexcept {
    return type_ == FloatType::kFloat64 ? kWideDigits : kNarrowDigits;
  }

  FloatType type_;
  std::size_t last_{0};  // no digit from here on is set
  // words(), and then nothing.
  std::array<std::int64_t, kCounts + kWideDigits> words_;
};

}  // namespace tfmbs::kernels

#pragma GCC visibility pop
