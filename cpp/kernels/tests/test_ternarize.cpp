#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include <array>
#include <cmath>
#include <stdexcept>

#include "kernel_test.hpp"

namespace tfmbs::kernels::test {
namespace {

class Ternarize : public KernelTest {
 protected:
  // thresholds empty: none given.
  void check(FloatMatrix& input, const std::vector<double>& thresholds) {
    const std::size_t row_words = bit_plane_blocks(input.columns) * kBlockWords;
    std::vector<std::uint64_t> planes(input.rows * row_words, 0xABABABABABABABAB);
    std::vector<std::uint8_t> nan_rows(input.rows, 77);
    GetParam().ternarize({.input = input.bytes.data(),
                          .type = input.type,
                          .rows = input.rows,
                          .columns = input.columns,
                          .row_stride = input.stride,
                          .thresholds = thresholds.empty() ? nullptr : thresholds.data(),
                          .planes = planes.data(),
                          .nan_rows = nan_rows.data()});
    std::vector<std::uint64_t> expected(planes.size(), 0);
    for (std::size_t r = 0; r < input.rows; ++r) {
      const double threshold = thresholds.empty() ? 0.0 : thresholds[r];
      std::uint8_t nan = 0;
      for (std::size_t k = 0; k < input.columns; ++k) {
        const double x = input.get(r, k);
        if (std::isnan(x)) nan = 1;
        std::uint64_t* word = expected.data() + r * row_words + bit_plane_word(k);
        if (x > threshold || x < -threshold) word[0] |= std::uint64_t{1} << (k % 64);
        if (x < -threshold) word[kPlaneWords] |= std::uint64_t{1} << (k % 64);
      }
      ASSERT_EQ(nan_rows[r], nan) << "row " << r;
    }
    ASSERT_EQ(planes, expected) << input.rows << " x " << input.columns << ", type "
                                << static_cast<int>(input.type);
  }
};

TEST_P(Ternarize, RandomShapes) {
  for (const FloatType type : kFloatTypes) {
    for (std::uint64_t i = 0; i < 60; ++i) {
      SCOPED_TRACE("seed " + std::to_string(case_seed(i)));
      Random random(case_seed(i));
      const std::size_t columns =
          random.chance(0.1) ? random.from_to(4095, 4097) : random.from_to(0, 1100);
      FloatMatrix input(type, random.below(6), columns, columns + random.below(4));
      for (std::size_t r = 0; r < input.rows; ++r) {
        for (std::size_t k = 0; k < columns; ++k) {
          input.put(r, k, random.chance(0.2) ? 0.0 : random.real(-2, 2));
        }
        if (columns > 0 && random.chance(0.2)) input.put(r, random.below(columns), std::nan(""));
      }
      std::vector<double> thresholds;
      if (random.chance(0.7)) {
        for (std::size_t r = 0; r < input.rows; ++r) {
          // Often a value of the row itself, which must not pass its own threshold.
          const bool own = columns > 0 && random.chance(0.5);
          const double value =
              own ? std::fabs(input.get(r, random.below(columns))) : random.real(0, 2);
          thresholds.push_back(std::isnan(value) ? 0.5 : value);
        }
      }
      ASSERT_NO_FATAL_FAILURE(check(input, thresholds));
    }
  }
}

TEST_P(Ternarize, EveryTail) {
  for (const FloatType type : kFloatTypes) {
    for (std::size_t columns = 0; columns <= 130; ++columns) {
      Random random(case_seed(900 + columns));
      FloatMatrix input(type, 2, columns, columns);
      for (std::size_t i = 0; i < 2 * columns; ++i) {
        input.put(i / columns, i % columns, random.chance(0.5) ? 1.0 : -1.0);
      }
      ASSERT_NO_FATAL_FAILURE(check(input, {}));
    }
  }
}

// Any bits at all: denormals, infinities, both zeros, quiet and signalling NaNs.
TEST_P(Ternarize, AnyBits) {
  for (const FloatType type : kFloatTypes) {
    for (std::uint64_t i = 0; i < 20; ++i) {
      SCOPED_TRACE("seed " + std::to_string(case_seed(500 + i)));
      Random random(case_seed(500 + i));
      const std::size_t columns = random.from_to(1, 300);
      FloatMatrix input(type, 4, columns, columns);
      for (unsigned char& byte : input.bytes) byte = static_cast<unsigned char>(random.bits());
      ASSERT_NO_FATAL_FAILURE(check(input, {0.0, 1e-3, 65504.0, 5e-324}));
    }
  }
}

#if defined(__SSE__)
// Denormals count where a caller has them flushed to zero, too.
class FlushedDenormals {
 public:
  FlushedDenormals() { _mm_setcsr(before_ | 0x8040); }  // flush to zero, denormals are zero
  ~FlushedDenormals() { _mm_setcsr(before_); }
  FlushedDenormals(const FlushedDenormals&) = delete;
  FlushedDenormals& operator=(const FlushedDenormals&) = delete;

 private:
  unsigned before_{_mm_getcsr()};
};

TEST_P(Ternarize, DenormalsCountWhereTheyAreFlushed) {
  for (const FloatType type : {FloatType::kFloat32, FloatType::kFloat64, FloatType::kBFloat16}) {
    constexpr std::size_t kColumns = 93;
    constexpr std::size_t kWords = bit_plane_blocks(kColumns) * kBlockWords;
    FloatMatrix input(type, 1, kColumns, kColumns);
    for (std::size_t k = 0; k < kColumns; ++k) {
      *static_cast<unsigned char*>(input.at(0, k)) = 1;  // the least positive one
    }
    std::array<std::uint64_t, kWords> planes{};
    std::uint8_t nan = 77;
    {
      const FlushedDenormals flushed;
      GetParam().ternarize({.input = input.bytes.data(),
                            .type = type,
                            .rows = 1,
                            .columns = kColumns,
                            .row_stride = kColumns,
                            .thresholds = nullptr,
                            .planes = planes.data(),
                            .nan_rows = &nan});
    }
    EXPECT_EQ(planes[0], ~std::uint64_t{0});
    EXPECT_EQ(planes[1], (std::uint64_t{1} << (kColumns - 64)) - 1);
    EXPECT_EQ(planes[kPlaneWords] | planes[kPlaneWords + 1], 0U);
    EXPECT_EQ(nan, 0);
  }
}
#endif

TEST_P(Ternarize, SpecialValues) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const double smallest[] = {0x1p-149, 0x1p-1074, 0x1p-133, 0x1p-24};
  const double largest[] = {0x1.fffffep127, 0x1.fffffffffffffp1023, 0x1.fep127, 65504.0};
  for (const FloatType type : kFloatTypes) {
    const double tiny = smallest[static_cast<std::size_t>(type)];
    const double huge = largest[static_cast<std::size_t>(type)];
    const std::vector<double> values = {0.0,  -0.0,  tiny,      -tiny,      2 * tiny, 1.0, -1.0,
                                        huge, -huge, kInfinity, -kInfinity, 0.5,      -0.5};
    const std::vector<double> limits = {0.0,
                                        5e-324,
                                        tiny / 2,
                                        tiny,
                                        1.5 * tiny,
                                        std::nextafter(0.5, 0.0),
                                        0.5,
                                        std::nextafter(0.5, 1.0),
                                        huge,
                                        std::nextafter(huge, 0.0),
                                        std::nextafter(huge, kInfinity),
                                        1e308,
                                        kInfinity};
    FloatMatrix input(type, limits.size(), values.size(), values.size());
    for (std::size_t r = 0; r < limits.size(); ++r) {
      for (std::size_t k = 0; k < values.size(); ++k) input.put(r, k, values[k]);
    }
    ASSERT_NO_FATAL_FAILURE(check(input, limits));
    ASSERT_NO_FATAL_FAILURE(check(input, {}));
  }
}

// The bits next to infinity's, of either sign, wherever in a row they are: no trit, and the row's
// only NaN.
TEST_P(Ternarize, TheLeastNanAnywhere) {
  constexpr std::size_t kColumns = 93;  // in the second word, a register of each size and a tail
  for (const FloatType type : kFloatTypes) {
    FloatMatrix input(type, 2 * kColumns, kColumns, kColumns);
    for (std::size_t r = 0; r < input.rows; ++r) {
      for (std::size_t k = 0; k < kColumns; ++k) input.put(r, k, k % 2 == 0 ? 1.0 : -1.0);
      const std::size_t at = r / 2;
      input.put(r, at, (r % 2 == 0 ? 1 : -1) * std::numeric_limits<double>::infinity());
      ++*static_cast<unsigned char*>(input.at(r, at));
      ASSERT_TRUE(std::isnan(input.get(r, at)));
    }
    ASSERT_NO_FATAL_FAILURE(check(input, {}));
  }
}

// A weight row with a NaN has a NaN threshold: nothing passes it.
TEST_P(Ternarize, NanThreshold) {
  for (const FloatType type : kFloatTypes) {
    FloatMatrix input(type, 1, 5, 5);
    for (std::size_t k = 0; k < 5; ++k) input.put(0, k, 3.0);
    input.put(0, 2, std::numeric_limits<double>::infinity());
    ASSERT_NO_FATAL_FAILURE(check(input, {std::nan("")}));
  }
}

TFMBS_FOR_EVERY_SET(Ternarize);

}  // namespace
}  // namespace tfmbs::kernels::test
