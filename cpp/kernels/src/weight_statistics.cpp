// A block of elements is summed in fp64, lane by lane. A check after it proves that no addition
// rounded. A block that fails the check is added in integers, one element at a time.
//
// The check: magnitudes that are multiples of 2^q add up exactly while the total is below
// 2^(q + 53). The computed total shows whether it was: the first addition that rounds gives at
// least 2^(q + 53), and adding magnitudes never goes below that again. Infinities and NaNs fail the
// check too.
#include "tfmbs/kernels/weight_statistics.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "scalar.hpp"

namespace tfmbs::kernels {
namespace {

// The compilers' own portable vectors, of the size that every 64-bit machine has.
using Pair = double __attribute__((vector_size(16)));
using Singles = float __attribute__((vector_size(16)));
using Words = std::uint64_t __attribute__((vector_size(16)));
using Halves = std::uint32_t __attribute__((vector_size(16)));
using SignedHalves = std::int32_t __attribute__((vector_size(16)));
using Quarters = std::uint16_t __attribute__((vector_size(16)));
using SignedQuarters = std::int16_t __attribute__((vector_size(16)));

template <typename To, typename From>
To as(From vector) noexcept {
  return reinterpret_cast<To>(vector);
}
template <typename Vector>
Vector load(const unsigned char* from) noexcept {
  Vector vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}
SignedQuarters smaller(SignedQuarters a, SignedQuarters b) noexcept { return a < b ? a : b; }
SignedQuarters larger(SignedQuarters a, SignedQuarters b) noexcept { return a > b ? a : b; }
// f of each element of a vector, one after another.
template <typename Vector, typename Function>
void for_each_element(Vector vector, Function f) noexcept {
  for (std::size_t i = 0; i < sizeof(Vector) / sizeof(vector[0]); ++i) f(vector[i]);
}

// A block that fails the check is tried again in small ones.
constexpr std::size_t kSmallBlock = 64;
// Digits hold 2^63 and grow by less than 2^33 an element.
constexpr std::size_t kElementsBetweenCarries = std::size_t{1} << 26;

template <FloatType kType>
inline constexpr FloatFormat kFormat = kType == FloatType::kFloat64    ? kFloat64Format
                                       : kType == FloatType::kFloat32  ? kFloat32Format
                                       : kType == FloatType::kBFloat16 ? kBFloat16Format
                                                                       : kFloat16Format;
template <FloatType kType>
inline constexpr std::size_t kBytes = kType == FloatType::kFloat64   ? 8
                                      : kType == FloatType::kFloat32 ? 4
                                                                     : 2;
// Elements that a loop takes at a time.
template <FloatType kType>
inline constexpr std::size_t kStep = kType == FloatType::kFloat64 ? 4 : 8;
// Large enough that the check costs little, small enough that blocks rarely fail it.
template <FloatType kType>
inline constexpr std::size_t kBlock = kType == FloatType::kFloat64 ? 1024 : 2048;

// The smallest values, as exponents of two: of the type, and of the digits' unit.
template <FloatType kType>
inline constexpr int kSmallest = 1 - kFormat<kType>.bias - kFormat<kType>.mantissa_bits;
template <FloatType kType>
inline constexpr int kUnit = kType == FloatType::kFloat64 ? -1074 : -149;

constexpr std::uint64_t kDigitMask = 0xFFFFFFFF;

// The digits of a sum while elements are added, between carries.
class Digits {
 public:
  explicit Digits(std::span<std::int64_t> digits) noexcept : digits_(digits) {}

  // mantissa * 2^position units; mantissa < 2^53.
  void add(std::uint64_t mantissa, std::size_t position) noexcept {
    const std::size_t digit = position / 32;
    const std::size_t shift = position % 32;
    const std::uint64_t low = (mantissa & kDigitMask) << shift;
    const std::uint64_t high = (mantissa >> 32) << shift;
    digits_[digit] += static_cast<std::int64_t>(low & kDigitMask);
    digits_[digit + 1] += static_cast<std::int64_t>((low >> 32) + (high & kDigitMask));
    digits_[digit + 2] += static_cast<std::int64_t>(high >> 32);
    first_ = std::min(first_, digit);
    last_ = std::max(last_, digit + 3);
  }

  // Leaves every digit in 0...2^32 - 1. Returns where those end that changed.
  std::size_t carry() noexcept {
    if (last_ == 0) return 0;
    std::int64_t carry = 0;
    std::size_t i = first_;
    for (; i < digits_.size() && (i < last_ || carry != 0); ++i) {
      carry += digits_[i];
      digits_[i] = carry & static_cast<std::int64_t>(kDigitMask);
      carry >>= 32;
    }
    first_ = digits_.size();
    last_ = 0;
    return i;
  }

 private:
  std::span<std::int64_t> digits_;
  std::size_t first_ = digits_.size();  // where carries may be due
  std::size_t last_ = 0;
};

struct Elements {
  const unsigned char* from;
  std::size_t count;

  template <FloatType kType>
  [[nodiscard]] Elements part(std::size_t first, std::size_t size) const noexcept {
    return {from + first * kBytes<kType>, std::min(size, count - first)};
  }
};

// Elements above it enter: as a double, and as a magnitude of the elements' format.
struct Threshold {
  double value;
  std::uint64_t magnitude;
};

struct Target {
  Digits digits;
  std::uint64_t count;
  std::uint64_t infinities;
};

template <FloatType kType, bool kAll>
void add_each(Elements elements, Threshold threshold, Target& to) noexcept {
  constexpr FloatFormat format = kFormat<kType>;
  constexpr std::uint64_t implicit = std::uint64_t{1} << format.mantissa_bits;
  for (std::size_t i = 0; i < elements.count; ++i) {
    std::conditional_t<kBytes<kType> == 8, std::uint64_t,
                       std::conditional_t<kBytes<kType> == 4, std::uint32_t, std::uint16_t>>
        bits = 0;
    std::memcpy(&bits, elements.from + i * kBytes<kType>, sizeof bits);
    const std::uint64_t magnitude = bits & (format.sign - 1);
    if (magnitude > format.infinity || (!kAll && magnitude <= threshold.magnitude)) continue;
    ++to.count;
    if (magnitude == format.infinity) {
      ++to.infinities;
      continue;
    }
    const std::uint64_t field = magnitude >> format.mantissa_bits;
    const std::uint64_t fraction = magnitude & (implicit - 1);
    const std::size_t exponent = field == 0 ? 0 : field - 1;
    to.digits.add(field == 0 ? fraction : fraction | implicit,
                  exponent + std::size_t{kSmallest<kType> - kUnit<kType>});
  }
}

// What a block's magnitudes add up to, in fp64, lane by lane.
template <std::size_t kPairs>
struct LaneSums {
  Pair sums[kPairs] = {};

  [[nodiscard]] double total() const noexcept {
    Pair pair = sums[0];
    for (std::size_t i = 1; i < kPairs; ++i) pair += sums[i];
    return pair[0] + pair[1];
  }
};

// Adds a finite double, a multiple of 2^unit_exponent, to digits of that unit.
void add_double(double value, int unit_exponent, Digits& to) noexcept {
  const std::uint64_t bits = double_bits(value);
  const int field = static_cast<int>(bits >> 52);
  std::uint64_t mantissa = bits & kMantissa64;
  if (field != 0) mantissa |= kMantissa64 + 1;
  int position = std::max(field, 1) - 1075 - unit_exponent;
  if (position < 0) {
    mantissa >>= -position;
    position = 0;
  }
  to.add(mantissa, static_cast<std::size_t>(position));
}

// 2^(field - 1023), or infinity.
double power_of_field(int field) noexcept {
  return double_from_bits(static_cast<std::uint64_t>(std::min(field, 2047)) << 52);
}

// The bits of an fp32 or bf16 magnitude, moved to where a double has them, are the value times
// 2^-896: their exponent fields have eight bits and a bias of 127, and 1023 - 127 = 896. Only
// denormals become denormal doubles.
constexpr int kScale = -896;
constexpr std::uint64_t kSingleInDouble = 0x0FFFFFFFE0000000;  // fp32's magnitude there
constexpr std::uint64_t kHalfInDouble = 0x0FFFE00000000000;    // bf16's
constexpr int kInfinityField = 255;

// add() takes the step at `from`. Unless kAll, elements above the threshold enter, and are counted.
// With kAll all enter, and `lowest` keeps the minimum of magnitude - 1: the highest 16 bits of each
// element, with the sign bit set. A zero gives the maximum, 0x7FFF.
struct Float32Lanes {
  LaneSums<4> sums;
  SignedHalves entered{};
  SignedQuarters lowest = SignedQuarters{} + INT16_MAX;

  template <bool kAll>
  void add(const unsigned char* from, Threshold threshold) noexcept {
    const auto limit = SignedHalves{} + static_cast<std::int32_t>(threshold.magnitude);
    for (std::size_t i = 0; i < 2; ++i) {
      Halves magnitudes = load<Halves>(from + 16 * i) & 0x7FFFFFFFU;
      if constexpr (kAll) {
        lowest = smaller(lowest, as<SignedQuarters>(magnitudes + 0x7FFFFFFFU));
      } else {
        const SignedHalves enters = as<SignedHalves>(magnitudes) > limit;
        magnitudes &= as<Halves>(enters);
        entered -= enters;
      }
      const auto words = as<Words>(magnitudes);
      sums.sums[2 * i] += as<Pair>(words << 29 & kSingleInDouble);
      sums.sums[2 * i + 1] += as<Pair>(words >> 3 & kSingleInDouble);
    }
  }

  [[nodiscard]] int lowest_field() const noexcept {
    std::int32_t field = kInfinityField;
    for_each_element(as<Halves>(lowest), [&](std::uint32_t element) {
      field = std::min(field, static_cast<std::int32_t>(element >> 23 & 0xFF));
    });
    return field;
  }
  [[nodiscard]] double bound(int field) const noexcept {
    return field < 1 ? 0.0 : power_of_field(std::min(field + 53 - 23, kInfinityField));
  }
};

struct BFloat16Lanes {
  LaneSums<4> sums;
  SignedQuarters entered{};
  SignedQuarters lowest = SignedQuarters{} + INT16_MAX;

  template <bool kAll>
  void add(const unsigned char* from, Threshold threshold) noexcept {
    Quarters magnitudes = load<Quarters>(from) & 0x7FFFU;
    if constexpr (kAll) {
      lowest = smaller(lowest, as<SignedQuarters>(magnitudes + 0x7FFFU));
    } else {
      const SignedQuarters enters =
          as<SignedQuarters>(magnitudes) >
          SignedQuarters{} + static_cast<std::int16_t>(threshold.magnitude);
      magnitudes &= as<Quarters>(enters);
      entered -= enters;
    }
    const auto words = as<Words>(magnitudes);
    sums.sums[0] += as<Pair>(words << 45 & kHalfInDouble);
    sums.sums[1] += as<Pair>(words << 29 & kHalfInDouble);
    sums.sums[2] += as<Pair>(words << 13 & kHalfInDouble);
    sums.sums[3] += as<Pair>(words >> 3 & kHalfInDouble);
  }

  [[nodiscard]] int lowest_field() const noexcept {
    int field = kInfinityField;
    for_each_element(as<Quarters>(lowest),
                     [&](std::uint16_t element) { field = std::min(field, element >> 7 & 0xFF); });
    return field;
  }
  [[nodiscard]] double bound(int field) const noexcept {
    return field < 1 ? 0.0 : power_of_field(std::min(field + 53 - 7, kInfinityField));
  }
};

// fp16 becomes fp32 first. Every value is a multiple of 2^-24 and below 2^16, so the sum of a block
// is exact unless it has infinities or NaNs.
struct Float16Lanes {
  static_assert(kBlock<FloatType::kFloat16> <= std::size_t{1} << (53 - 24 - 16));
  LaneSums<4> sums;
  SignedQuarters entered{};
  SignedQuarters largest{};

  template <bool kAll>
  void add(const unsigned char* from, Threshold threshold) noexcept {
    Quarters magnitudes = load<Quarters>(from) & 0x7FFFU;
    if constexpr (!kAll) {
      const SignedQuarters enters =
          as<SignedQuarters>(magnitudes) >
          SignedQuarters{} + static_cast<std::int16_t>(threshold.magnitude);
      magnitudes &= as<Quarters>(enters);
      entered -= enters;
    }
    largest = larger(largest, as<SignedQuarters>(magnitudes));
    const auto halves = as<Halves>(magnitudes);
    add_singles(halves & 0xFFFFU, 0);
    add_singles(halves >> 16, 2);
  }

  // A denormal's fraction is put beside the smallest normal's exponent, and that value subtracted.
  void add_singles(Halves magnitudes, std::size_t lane) noexcept {
    const auto denormal = as<Halves>(as<SignedHalves>(magnitudes) < 0x400);
    const Halves bits = (magnitudes << 13) + 0x38000000U + (denormal & 0x00800000U);
    const Singles values = as<Singles>(bits) - as<Singles>(denormal & 0x38800000U);
    const auto words = as<Words>(values);
    sums.sums[lane] += as<Pair>(words << 29 & kSingleInDouble);
    sums.sums[lane + 1] += as<Pair>(words >> 3 & kSingleInDouble);
  }

  [[nodiscard]] int lowest_field() const noexcept { return 1; }
  [[nodiscard]] double bound(int /*field*/) const noexcept {
    int highest = 0;
    for_each_element(largest,
                     [&](std::int16_t element) { highest = std::max(highest, int{element}); });
    return highest < 0x7C00 ? power_of_field(kInfinityField) : 0.0;
  }
};

// An fp64 magnitude is split into its first 27 bits and the other 26, which are summed apart.
constexpr std::uint64_t kMagnitude = INT64_MAX;
constexpr std::uint64_t kHighBits = 0x7FFFFFFFFC000000;
// The lowest field whose value has no denormal part.
constexpr int kLowestSplitField = 54;

struct Float64Lanes {
  LaneSums<2> high;
  LaneSums<2> low;
  Words entered{};
  SignedQuarters lowest = SignedQuarters{} + INT16_MAX;

  template <bool kAll>
  void add(const unsigned char* from, Threshold threshold) noexcept {
    for (std::size_t i = 0; i < 2; ++i) {
      Words magnitudes = load<Words>(from + 16 * i) & kMagnitude;
      if constexpr (kAll) {
        lowest = smaller(lowest, as<SignedQuarters>(magnitudes + kMagnitude));
      } else {
        // SSE2 does not compare 64-bit integers. False for a NaN. A CPU that treats denormals as
        // zeros gives the same for every normal threshold; blocks of the others fail the check.
        const auto enters = as<Words>(as<Pair>(magnitudes) > Pair{} + threshold.value);
        magnitudes &= enters;
        entered -= enters;
      }
      const auto first_bits = as<Pair>(magnitudes & kHighBits);
      high.sums[i] += first_bits;
      low.sums[i] += as<Pair>(magnitudes) - first_bits;
    }
  }

  [[nodiscard]] int lowest_field() const noexcept {
    std::int32_t field = 2047;
    for_each_element(as<Words>(lowest), [&](std::uint64_t element) {
      field = std::min(field, static_cast<std::int32_t>(element >> 52 & 0x7FF));
    });
    return field;
  }
};

template <FloatType kType>
using Lanes =
    std::conditional_t<kType == FloatType::kFloat64, Float64Lanes,
                       std::conditional_t<kType == FloatType::kFloat32, Float32Lanes,
                                          std::conditional_t<kType == FloatType::kBFloat16,
                                                             BFloat16Lanes, Float16Lanes>>>;

// Adds a block and returns true; or returns false, having added nothing, if it fails the check.
template <FloatType kType, bool kAll>
[[gnu::noinline]] bool add_block(Elements elements, Threshold threshold, Target& to) noexcept {
  constexpr std::size_t kStepBytes = kStep<kType> * kBytes<kType>;
  constexpr std::size_t kStepElements = kStep<kType>;
  const std::size_t whole = elements.count / kStepElements * kStepElements;
  const std::size_t rest = elements.count - whole;
  unsigned char tail[kStepBytes];
  if (rest != 0) {  // padded with zeros, which add nothing
    std::memset(tail, 0, kStepBytes);
    std::memcpy(tail, elements.from + whole * kBytes<kType>, rest * kBytes<kType>);
  }
  Lanes<kType> lanes;
  for (const bool last : {false, true}) {
    const unsigned char* from = last ? tail : elements.from;
    const unsigned char* end =
        from +
        (last ? (rest + kStepElements - 1) / kStepElements * kStepBytes : whole * kBytes<kType>);
#pragma GCC unroll 2
    for (; from != end; from += kStepBytes) lanes.template add<kAll>(from, threshold);
  }

  const int lowest =
      kAll ? lanes.lowest_field()
           : static_cast<int>((threshold.magnitude + 1) >> kFormat<kType>.mantissa_bits);
  if constexpr (kType == FloatType::kFloat64) {
    const double high = lanes.high.total();
    const double low = lanes.low.total();
    // Then `low`, less than 2^-26 of it, is exact too.
    if (lowest < kLowestSplitField || !(high < power_of_field(lowest + 53 - 26))) return false;
    add_double(high, kUnit<kType>, to.digits);
    add_double(low, kUnit<kType>, to.digits);
  } else {
    const double total = lanes.sums.total();
    if (!(total < lanes.bound(lowest))) return false;
    add_double(total, kUnit<kType> + kScale, to.digits);
  }
  if constexpr (kAll) {
    to.count += elements.count;
  } else {
    for_each_element(lanes.entered,
                     [&](auto lane) { to.count += static_cast<std::uint64_t>(lane); });
  }
  return true;
}

template <FloatType kType, bool kAll>
void add_elements(Elements elements, Threshold threshold, Target& to) noexcept {
  for (std::size_t i = 0; i < elements.count; i += kBlock<kType>) {
    const Elements block = elements.part<kType>(i, kBlock<kType>);
    if (add_block<kType, kAll>(block, threshold, to)) continue;
    for (std::size_t j = 0; j < block.count; j += kSmallBlock) {
      const Elements small = block.part<kType>(j, kSmallBlock);
      if (!add_block<kType, kAll>(small, threshold, to)) {
        add_each<kType, kAll>(small, threshold, to);
      }
    }
  }
}

}  // namespace

MagnitudeSum::MagnitudeSum(FloatType type) noexcept : type_(type) {
  std::fill_n(words_.begin(), kCounts + digits(), 0);
}

void MagnitudeSum::add(const void* values, std::size_t count, double threshold) noexcept {
  const Threshold limit{threshold, threshold_magnitude(threshold, format_of(type_))};
  const bool all = threshold < 0;
  if (!all && limit.magnitude >= format_of(type_).infinity) return;  // infinite, or a NaN

  const std::span words(words_.data(), kCounts + digits());
  Target to{Digits(words.subspan(kCounts)), 0, 0};
  const Elements elements{static_cast<const unsigned char*>(values), count};
  with_type(type_, [&](auto type) {
    constexpr FloatType kType = decltype(type)::value;
    for (std::size_t i = 0; i < count; i += kElementsBetweenCarries) {
      const Elements part = elements.part<kType>(i, kElementsBetweenCarries);
      if (all) {
        add_elements<kType, true>(part, limit, to);
      } else {
        add_elements<kType, false>(part, limit, to);
      }
      last_ = std::max(last_, to.digits.carry());
    }
  });
  words_[0] += static_cast<std::int64_t>(to.count);
  words_[1] += static_cast<std::int64_t>(to.infinities);
}

void MagnitudeSum::add_words(std::span<const std::int64_t> words) noexcept {
  for (std::size_t i = 0; i < kCounts; ++i) words_[i] += words[i];
  std::int64_t carry = 0;
  for (std::size_t i = kCounts; i < kCounts + digits(); ++i) {
    carry += words_[i] + words[i];
    words_[i] = carry & static_cast<std::int64_t>(kDigitMask);
    carry >>= 32;
  }
  last_ = digits();
}

double MagnitudeSum::sum() const noexcept {
  const auto digit = [&](std::size_t i) { return static_cast<std::uint64_t>(words_[kCounts + i]); };
  std::size_t top = last_;
  if (words_[1] != 0) return double_from_bits(kFloat64Format.infinity);
  while (top != 0 && digit(top - 1) == 0) --top;
  if (top == 0) return 0.0;

  // The highest 64 bits of three digits, the first of them set.
  --top;
  const auto lead = static_cast<unsigned>(std::countl_zero(static_cast<std::uint32_t>(digit(top))));
  const std::uint64_t middle = top >= 1 ? digit(top - 1) : 0;
  const std::uint64_t bottom = top >= 2 ? digit(top - 2) : 0;
  std::uint64_t bits = (digit(top) << 32 | middle) << lead | (bottom << lead) >> 32;

  // bits * 2^exponent of the smallest double, which is the unit of fields 0 and 1 alike.
  const int exponent = 32 * static_cast<int>(top) - 32 - static_cast<int>(lead) +
                       (type_ == FloatType::kFloat64 ? 0 : 1074 - 149);
  const int raise = std::max(exponent + 11, 0);  // 53 bits remain, or fewer of a denormal
  const int shift = raise - exponent;
  const std::uint64_t below = bits & ((std::uint64_t{1} << shift) - 1);
  const std::uint64_t half = std::uint64_t{1} << (shift - 1);
  bits >>= shift;
  const auto is_above_half = [&] {  // what the 64 bits do not show
    bool rest = ((bottom << lead) & kDigitMask) != 0;
    for (std::size_t i = 0; i + 2 < top && !rest; ++i) rest = digit(i) != 0;
    return rest;
  };
  if (below > half || (below == half && ((bits & 1) != 0 || is_above_half()))) ++bits;
  // The first of 53 bits adds 1 to the field, and so does one that rounding carried.
  bits += static_cast<std::uint64_t>(raise) << 52;
  return double_from_bits(std::min(bits, kFloat64Format.infinity));
}

}  // namespace tfmbs::kernels
