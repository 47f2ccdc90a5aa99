#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <utility>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "kernel_test.hpp"
#include "tfmbs/kernels/weight_statistics.hpp"

namespace tfmbs::kernels::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// An exact sum, a bit at a time: bit i is worth 2^(i - 1074).
class BitSum {
 public:
  void add(double value) {
    ++count_;
    if (std::isinf(value)) infinite_ = true;
    if (value == 0 || infinite_) return;
    int exponent = 0;
    const double fraction = std::frexp(value, &exponent);  // 0.5 to 1
    auto mantissa = static_cast<std::uint64_t>(std::ldexp(fraction, 53));
    int at = exponent - 53 + 1074;
    for (; at < 0; ++at) mantissa >>= 1;  // zeros, below the smallest double
    for (; mantissa != 0; mantissa >>= 1, ++at) {
      if ((mantissa & 1) != 0) carry_into(static_cast<std::size_t>(at));
    }
  }

  [[nodiscard]] std::uint64_t count() const { return count_; }
  [[nodiscard]] double sum() const {
    if (infinite_) return kInfinity;
    std::size_t top = bits_.size();
    while (top > 0 && bits_[top - 1] == 0) --top;
    const std::size_t low = top > 53 ? top - 53 : 0;
    double result = 0;
    for (std::size_t i = top; i-- > low;) result = 2 * result + bits_[i];
    if (low > 0 && bits_[low - 1] != 0) {
      bool up = bits_[low] != 0;
      for (std::size_t i = 0; i + 1 < low; ++i) up = up || bits_[i] != 0;
      if (up) result += 1;
    }
    return std::ldexp(result, static_cast<int>(low) - 1074);
  }
  [[nodiscard]] double mean() const {
    return count_ == 0 ? 0.0 : sum() / static_cast<double>(count_);
  }

 private:
  void carry_into(std::size_t at) {
    for (; bits_[at] != 0; ++at) bits_[at] = 0;
    bits_[at] = 1;
  }

  std::vector<std::uint8_t> bits_ = std::vector<std::uint8_t>(2200);
  std::uint64_t count_{0};
  bool infinite_{false};
};

BitSum expected_sum(FloatMatrix& row, double threshold) {
  BitSum expected;
  for (std::size_t i = 0; i < row.columns; ++i) {
    const double magnitude = std::fabs(row.get(0, i));
    if (std::isnan(magnitude) || !(threshold < 0 || magnitude > threshold)) continue;
    expected.add(magnitude);
  }
  return expected;
}

MagnitudeSum sum_of(FloatMatrix& row, double threshold) {
  MagnitudeSum sum(row.type);
  sum.add(row.bytes.data(), row.columns, threshold);
  return sum;
}

std::vector<std::int64_t> words_of(const MagnitudeSum& sum) {
  return {sum.words().begin(), sum.words().end()};
}

void expect_equal(const MagnitudeSum& got, const BitSum& expected) {
  EXPECT_EQ(got.count(), expected.count());
  EXPECT_EQ(std::bit_cast<std::uint64_t>(got.sum()), std::bit_cast<std::uint64_t>(expected.sum()))
      << got.sum() << " instead of " << expected.sum();
  EXPECT_EQ(std::bit_cast<std::uint64_t>(got.mean()),
            std::bit_cast<std::uint64_t>(expected.mean()));
}

// How the magnitudes of a random row lie.
enum class Spread : std::uint8_t {
  kNormal,    // as weights do
  kNear,      // within some binades, about as many as a block can add without rounding
  kTwo,       // two groups that are far apart, and zeros
  kAnywhere,  // every exponent of the type, denormals included
  kBits,      // every pattern of bits, NaNs and infinities included
  kLargest,   // the largest value of the type, some smallest ones
};
constexpr Spread kSpreads[] = {Spread::kNormal,   Spread::kNear, Spread::kTwo,
                               Spread::kAnywhere, Spread::kBits, Spread::kLargest};

struct Range {
  int lowest;  // exponent of the smallest value
  int highest;
};
Range range_of(FloatType type) {
  switch (type) {
    case FloatType::kFloat64:
      return {-1074, 1023};
    case FloatType::kFloat32:
      return {-149, 127};
    case FloatType::kBFloat16:
      return {-133, 127};
    case FloatType::kFloat16:
      break;
  }
  return {-24, 15};
}

int digits_of(FloatType type) {
  return type == FloatType::kFloat64    ? 53
         : type == FloatType::kFloat32  ? 24
         : type == FloatType::kBFloat16 ? 8
                                        : 11;
}

FloatMatrix random_row(Random& random, FloatType type, std::size_t columns, Spread spread) {
  FloatMatrix row(type, 1, columns, columns);
  const auto [lowest, highest] = range_of(type);
  const auto anywhere = [&] {
    return lowest + static_cast<int>(random.below(static_cast<std::size_t>(highest - lowest) + 1));
  };
  const int groups[] = {anywhere(), anywhere()};
  const std::size_t binades = 1 + random.below(48);
  for (std::size_t k = 0; k < columns; ++k) {
    const double sign = random.chance(0.5) ? 1.0 : -1.0;
    switch (spread) {
      case Spread::kNormal: {
        double value = 0;
        for (int i = 0; i < 4; ++i) value += random.real(-0.02, 0.02);
        row.put(0, k, value);
        break;
      }
      case Spread::kNear: {
        // Many at the top, few below, all bits of the fraction set: what rounds first.
        const std::size_t below = random.chance(0.02) ? random.below(binades) : 0;
        const int exponent = std::max(lowest, groups[0] - static_cast<int>(below));
        const double last = random.chance(0.5) ? std::ldexp(1.0, 1 - digits_of(type)) : 0.0;
        row.put(0, k, sign * std::ldexp(random.chance(0.5) ? 1.0 + last : 1.99, exponent));
        break;
      }
      case Spread::kTwo:
        if (random.chance(0.1)) break;
        // Below 2^(highest + 1), but by 1/512: rounding to a small type does not reach infinity.
        row.put(0, k, sign * std::ldexp(random.real(1, 1.99), groups[random.below(2)]));
        break;
      case Spread::kAnywhere:
        row.put(0, k, sign * std::ldexp(random.real(1, 1.99), anywhere()));
        break;
      case Spread::kBits: {
        const std::uint64_t bits = random.bits();
        std::memcpy(row.at(0, k), &bits, float_bytes(type));
        break;
      }
      case Spread::kLargest: {
        const double largest = std::ldexp(2.0 - std::ldexp(1.0, 1 - digits_of(type)), highest);
        row.put(0, k, sign * (random.chance(0.1) ? std::ldexp(1.0, lowest) : largest));
        break;
      }
    }
  }
  return row;
}

// A threshold that parts the row: one of its elements', or what a quantizer would take.
double threshold_for(Random& random, FloatMatrix& row) {
  const double given[] = {-1.0, 0.0, 0.01, kInfinity, kNaN, std::ldexp(1.0, -1060)};
  if (row.columns == 0 || random.chance(0.4)) return given[random.below(6)];
  if (random.chance(0.5)) return 0.7 * sum_of(row, -1.0).mean();
  return std::fabs(row.get(0, random.below(row.columns)));
}

TEST(MagnitudeSum, IsTheExactSumRoundedOnce) {
  for (const FloatType type : kFloatTypes) {
    for (const Spread spread : kSpreads) {
      for (std::uint64_t i = 0; i < case_count(60); ++i) {
        SCOPED_TRACE("seed " + std::to_string(case_seed(i)) + ", type " +
                     std::to_string(static_cast<int>(type)) + ", spread " +
                     std::to_string(static_cast<int>(spread)));
        Random random(case_seed(i));
        const std::size_t columns = random.chance(0.5) ? random.below(40) : random.below(5000);
        FloatMatrix row = random_row(random, type, columns, spread);
        const double threshold = threshold_for(random, row);
        expect_equal(sum_of(row, threshold), expected_sum(row, threshold));
        if (HasFailure()) return;
      }
    }
  }
}

TEST(MagnitudeSum, DependsOnNoOrderAndNoSplit) {
  for (const FloatType type : kFloatTypes) {
    for (const Spread spread : kSpreads) {
      for (std::uint64_t i = 0; i < case_count(20); ++i) {
        SCOPED_TRACE("seed " + std::to_string(case_seed(i)) + ", type " +
                     std::to_string(static_cast<int>(type)) + ", spread " +
                     std::to_string(static_cast<int>(spread)));
        Random random(case_seed(i));
        const std::size_t columns = random.below(6000);
        FloatMatrix row = random_row(random, type, columns, spread);
        const double threshold = threshold_for(random, row);
        const auto whole = words_of(sum_of(row, threshold));

        FloatMatrix shuffled(type, 1, columns, columns);
        std::vector<std::size_t> order(columns);
        std::iota(order.begin(), order.end(), std::size_t{0});
        for (std::size_t k = columns; k > 1; --k) std::swap(order[k - 1], order[random.below(k)]);
        for (std::size_t k = 0; k < columns; ++k) {
          std::memcpy(shuffled.at(0, k), row.at(0, order[k]), float_bytes(type));
        }
        ASSERT_EQ(words_of(sum_of(shuffled, threshold)), whole);

        // Parts of any length, merged two by two in a random order.
        std::vector<MagnitudeSum> parts(1, MagnitudeSum(type));
        for (std::size_t first = 0; first < columns;) {
          const std::size_t size = std::min(columns - first, random.below(1500));
          parts.emplace_back(type).add(shuffled.at(0, first), size, threshold);
          first += size;
        }
        // The words of all parts, added as plain integers, are a sum too.
        std::vector<std::int64_t> added(whole.size());
        for (const MagnitudeSum& part : parts) {
          for (std::size_t w = 0; w < added.size(); ++w) added[w] += part.words()[w];
        }
        MagnitudeSum reduced(type);
        reduced.add_words(added);
        ASSERT_EQ(words_of(reduced), whole);
        ASSERT_EQ(reduced.sum(), sum_of(row, threshold).sum());
        while (parts.size() > 1) {
          std::swap(parts[random.below(parts.size())], parts.back());
          const MagnitudeSum last = parts.back();
          parts.pop_back();
          parts[random.below(parts.size())].merge(last);
        }
        ASSERT_EQ(words_of(parts[0]), whole);
      }
    }
  }
}

TEST(MagnitudeSum, GoesOnWhereItStopped) {
  for (const FloatType type : kFloatTypes) {
    Random random(case_seed(0));
    FloatMatrix row = random_row(random, type, 3000, Spread::kTwo);
    MagnitudeSum sum(type);
    for (std::size_t k = 0; k < row.columns; ++k) sum.add(row.at(0, k), 1);
    EXPECT_EQ(words_of(sum), words_of(sum_of(row, -1.0)));
  }
}

// Sums of blocks that doubles hold just so, or just not: the words show a bit that went missing.
TEST(MagnitudeSum, IsExactOnEverySideOfWhatDoublesHold) {
  constexpr std::size_t kColumns = 2048;
  for (const FloatType type : kFloatTypes) {
    const auto [lowest, highest] = range_of(type);
    const double last = std::ldexp(1.0, 1 - digits_of(type));
    // Both halves of fp64's bits end with a one.
    const double fraction = type == FloatType::kFloat64 ? last + std::ldexp(1.0, -26) : last;
    const int base = type == FloatType::kFloat64 ? 0 : lowest + digits_of(type) - 1;
    for (int gap = 0; gap <= 64 && base + gap <= highest; ++gap) {
      for (const std::size_t large : {1U, 2U, 7U, 250U, 1023U, 2047U}) {
        FloatMatrix row(type, 1, kColumns, kColumns);
        for (std::size_t k = 0; k < kColumns; ++k) {
          row.put(
              0, k,
              k < large ? std::ldexp(2.0 - last, base + gap) : std::ldexp(1.0 + fraction, base));
        }
        MagnitudeSum expected(type);
        for (std::size_t k = 0; k < kColumns; ++k) expected.add(row.at(0, k), 1);
        ASSERT_EQ(words_of(sum_of(row, -1.0)), words_of(expected)) << gap << " " << large;
        const double threshold = std::ldexp(1.0, base);
        ASSERT_EQ(words_of(sum_of(row, threshold)), words_of(expected)) << gap << " " << large;
      }
    }
  }
}

TEST(MagnitudeSum, LongRows) {
  const std::size_t columns = case_count(std::size_t{1} << 20);
  const std::pair<FloatType, Spread> cases[] = {{FloatType::kFloat32, Spread::kNormal},
                                                {FloatType::kFloat64, Spread::kNear},
                                                {FloatType::kBFloat16, Spread::kAnywhere},
                                                {FloatType::kFloat16, Spread::kLargest}};
  for (const auto& [type, spread] : cases) {
    SCOPED_TRACE("type " + std::to_string(static_cast<int>(type)));
    Random random(case_seed(1));
    FloatMatrix row = random_row(random, type, columns, spread);
    const MagnitudeSum got = sum_of(row, -1.0);
    expect_equal(got, expected_sum(row, -1.0));
    const double threshold = 0.7 * got.mean();
    expect_equal(sum_of(row, threshold), expected_sum(row, threshold));
  }
}

#if defined(__SSE2__)
// Set by torch.set_flush_denormal and by -ffast-math of any library.
TEST(MagnitudeSum, TakesDenormalsForWhatTheyAre) {
  const unsigned before = _mm_getcsr();
  for (const FloatType type : kFloatTypes) {
    for (const bool small : {false, true}) {
      for (std::uint64_t i = 0; i < 20; ++i) {
        Random random(case_seed(i));
        FloatMatrix row = random_row(random, type, random.below(1500), Spread::kAnywhere);
        // Alike, so that only denormals keep doubles from being exact.
        const int exponent = range_of(type).lowest + static_cast<int>(random.below(80));
        for (std::size_t k = 0; small && k < row.columns; ++k) {
          row.put(0, k, std::ldexp(random.real(1, 2), exponent));
        }
        for (const double threshold :
             {-1.0, 0.0, std::ldexp(1.0, -1060), std::ldexp(1.0, -140), 0.01}) {
          const BitSum expected = expected_sum(row, threshold);
          _mm_setcsr(before | 0x8040);  // flush to zero, denormals are zeros
          const MagnitudeSum got = sum_of(row, threshold);
          _mm_setcsr(before);
          ASSERT_EQ(got.count(), expected.count());
          ASSERT_EQ(got.sum(), expected.sum());
        }
      }
    }
  }
}
#endif

TEST(MagnitudeSum, CountsWhatIsAboveTheThreshold) {
  const auto sum = [](double threshold) {
    const float row[] = {0.5F, -0.5F, 0.25F, -2.0F, 0.0F, -0.0F, std::nanf(""), 1.0F, 0.5F};
    MagnitudeSum result(FloatType::kFloat32);
    result.add(row, 9, threshold);
    return result;
  };
  EXPECT_EQ(sum(-1.0).count(), 8U);
  EXPECT_EQ(sum(-1.0).mean(), 4.75 / 8);
  EXPECT_EQ(sum(0.0).count(), 6U);
  EXPECT_EQ(sum(0.5).count(), 2U);
  EXPECT_EQ(sum(0.5).sum(), 3.0);
  EXPECT_EQ(sum(2.0).count(), 0U);
  EXPECT_EQ(sum(2.0).mean(), 0.0);
  EXPECT_EQ(sum(kInfinity).count(), 0U);
  EXPECT_EQ(sum(kNaN).count(), 0U);
}

TEST(MagnitudeSum, EmptyAndInfinite) {
  for (const FloatType type : kFloatTypes) {
    MagnitudeSum sum(type);
    sum.add(nullptr, 0);
    EXPECT_EQ(sum.sum(), 0.0);
    EXPECT_EQ(sum.mean(), 0.0);
    EXPECT_EQ(words_of(sum), std::vector<std::int64_t>(type == FloatType::kFloat64 ? 70 : 13));

    FloatMatrix row(type, 1, 3, 3);
    row.put(0, 0, 1.0);
    row.put(0, 1, -kInfinity);
    row.put(0, 2, kNaN);
    sum.add(row.bytes.data(), 3, 65504.0);
    EXPECT_EQ(sum.count(), 1U);
    EXPECT_EQ(sum.sum(), kInfinity);
    sum.add(row.bytes.data(), 3);
    EXPECT_EQ(sum.count(), 3U);
    EXPECT_EQ(sum.mean(), kInfinity);
    EXPECT_EQ(sum.words()[1], 2);
  }
}

// What no shorter accumulator keeps: neighbours of a tie, 2,000 binades apart.
TEST(MagnitudeSum, RoundsTiesByWhatIsFarBelow) {
  const auto sum = [](std::vector<double> values) {
    MagnitudeSum result(FloatType::kFloat64);
    result.add(values.data(), values.size());
    return result.sum();
  };
  const double smallest = std::numeric_limits<double>::denorm_min();
  const double one = std::ldexp(1.0, 900);
  const double half_ulp = std::ldexp(1.0, 900 - 53);
  EXPECT_EQ(sum({one, half_ulp}), one);
  EXPECT_EQ(sum({one, half_ulp, smallest}), one + 2 * half_ulp);
  EXPECT_EQ(sum({smallest, half_ulp, one}), one + 2 * half_ulp);
  EXPECT_EQ(sum({one, 2 * half_ulp, half_ulp}), one + 4 * half_ulp);
  EXPECT_EQ(sum({smallest, smallest, smallest}), 3 * smallest);
  const double largest = std::numeric_limits<double>::max();
  const double last_place = std::ldexp(1.0, 1023 - 52);
  EXPECT_EQ(sum({largest, last_place / 2}), kInfinity);
  EXPECT_EQ(sum({largest, last_place / 4}), largest);
  EXPECT_EQ(sum({largest, largest}), kInfinity);
  // 2^-1022 and what is below it, where doubles have less than 53 bits.
  const double normal = std::numeric_limits<double>::min();
  EXPECT_EQ(sum({normal - smallest}), normal - smallest);
  EXPECT_EQ(sum({normal - smallest, smallest}), normal);
  EXPECT_EQ(sum({normal, normal, smallest}), 2 * normal);
}

}  // namespace
}  // namespace tfmbs::kernels::test
