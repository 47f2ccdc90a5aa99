#include <cmath>
#include <stdexcept>

#include "kernel_test.hpp"

namespace tfmbs::kernels::test {
namespace {

class QuantizeInt8 : public KernelTest {
 protected:
  struct Expected {
    std::vector<std::int8_t> values;
    std::vector<double> scales;
    std::vector<std::uint8_t> nan_rows;
  };

  template <typename Real>
  static Expected quantize(FloatMatrix& input) {
    Expected expected;
    for (std::size_t r = 0; r < input.rows; ++r) {
      Real largest = 0;
      bool finite = true;
      for (std::size_t k = 0; k < input.columns; ++k) {
        const auto x = static_cast<Real>(input.get(r, k));
        finite = finite && std::isfinite(x);
        if (std::fabs(x) > largest) largest = std::fabs(x);
      }
      const Real a = std::max(largest, static_cast<Real>(1e-5));
      const Real inverse = Real{127} / a;
      for (std::size_t k = 0; k < input.columns; ++k) {
        Real q = finite ? std::nearbyint(static_cast<Real>(input.get(r, k)) * inverse) : Real{0};
        q = std::min(std::max(q, Real{-127}), Real{127});
        expected.values.push_back(static_cast<std::int8_t>(q));
      }
      expected.scales.push_back(finite ? static_cast<double>(a / Real{127}) : 1.0);
      expected.nan_rows.push_back(finite ? 0 : 1);
    }
    return expected;
  }

  enum class Want { kBoth, kValues, kPlanes };

  void check_every_way(FloatMatrix& input) {
    for (const Want want : {Want::kBoth, Want::kValues, Want::kPlanes}) {
      ASSERT_NO_FATAL_FAILURE(check(input, want)) << static_cast<int>(want);
    }
  }

  void check(FloatMatrix& input, Want want) {
    const Expected expected =
        input.type == FloatType::kFloat64 ? quantize<double>(input) : quantize<float>(input);
    const std::size_t row_words = bit_plane_blocks(input.columns) * kBlockWords;
    // A gap between the planes, which must stay as it is.
    constexpr std::uint64_t kUntouched = 0xABABABABABABABAB;
    const std::size_t plane_stride = input.rows * row_words + 16;
    std::vector<std::uint64_t> planes(kInt8Planes * plane_stride, kUntouched);
    std::vector<std::int8_t> values(input.rows * input.columns, 99);
    std::vector<double> scales(input.rows, -1.0);
    std::vector<std::uint8_t> nan_rows(input.rows, 77);
    GetParam().quantize_int8({.input = input.bytes.data(),
                              .type = input.type,
                              .rows = input.rows,
                              .columns = input.columns,
                              .row_stride = input.stride,
                              .planes = want == Want::kValues ? nullptr : planes.data(),
                              .plane_stride = plane_stride,
                              .values = want == Want::kPlanes ? nullptr : values.data(),
                              .scales = scales.data(),
                              .nan_rows = nan_rows.data()});
    ASSERT_EQ(scales, expected.scales);
    ASSERT_EQ(nan_rows, expected.nan_rows);
    if (want == Want::kPlanes) {
      ASSERT_EQ(values, std::vector<std::int8_t>(values.size(), 99));
    } else {
      ASSERT_EQ(values, expected.values);
    }
    if (want == Want::kValues) {
      ASSERT_EQ(planes, std::vector<std::uint64_t>(planes.size(), kUntouched));
      return;
    }
    for (std::size_t p = 0; p < kInt8Planes; ++p) {
      for (std::size_t w = input.rows * row_words; w < plane_stride; ++w) {
        ASSERT_EQ(planes[p * plane_stride + w], kUntouched);
      }
    }
    // The planes say the same: Horner over the trits, and nothing in the padding.
    for (std::size_t r = 0; r < input.rows; ++r) {
      for (std::size_t k = 0; k < bit_plane_blocks(input.columns) * kBlockTrits; ++k) {
        int value = 0;
        for (std::size_t p = 0; p < kInt8Planes; ++p) {
          const std::uint64_t* word =
              planes.data() + p * plane_stride + r * row_words + bit_plane_word(k);
          const int nonzero = static_cast<int>(word[0] >> (k % 64) & 1);
          const int negative = static_cast<int>(word[kPlaneWords] >> (k % 64) & 1);
          ASSERT_LE(negative, nonzero);
          value = 3 * value + nonzero - 2 * negative;
          if (k >= input.columns) {
            ASSERT_EQ(nonzero, 0) << "padding, plane " << p;
          }
        }
        if (k < input.columns) {
          ASSERT_EQ(value, expected.values[r * input.columns + k])
              << "row " << r << ", column " << k;
        }
      }
    }
  }
};

TEST_P(QuantizeInt8, RandomShapes) {
  for (const FloatType type : kFloatTypes) {
    for (std::uint64_t i = 0; i < 40; ++i) {
      SCOPED_TRACE("seed " + std::to_string(case_seed(i)));
      Random random(case_seed(i));
      const std::size_t columns =
          random.chance(0.05) ? random.from_to(4095, 4097) : random.from_to(0, 1100);
      FloatMatrix input(type, random.below(4), columns, columns + random.below(4));
      for (std::size_t r = 0; r < input.rows; ++r) {
        const double size = std::ldexp(1.0, static_cast<int>(random.below(24)) - 12);
        for (std::size_t k = 0; k < columns; ++k) input.put(r, k, random.real(-size, size));
        if (columns > 0 && random.chance(0.2)) {
          input.put(r, random.below(columns),
                    random.chance(0.5) ? std::nan("") : std::numeric_limits<double>::infinity());
        }
      }
      ASSERT_NO_FATAL_FAILURE(check_every_way(input));
    }
  }
}

TEST_P(QuantizeInt8, EveryTail) {
  for (const FloatType type : kFloatTypes) {
    for (std::size_t columns = 0; columns <= 130; ++columns) {
      SCOPED_TRACE(columns);
      Random random(case_seed(900 + columns));
      FloatMatrix input(type, 2, columns, columns);
      for (std::size_t i = 0; i < 2 * columns; ++i) {
        const double value = random.real(0.5, 1);  // no zero, which what is missing would be
        input.put(i / columns, i % columns, random.chance(0.5) ? value : -value);
      }
      ASSERT_NO_FATAL_FAILURE(check_every_way(input));
    }
  }
}

// Integers and halves at a scale of one: every int8, and every tie.
TEST_P(QuantizeInt8, EveryValueAndEveryTie) {
  for (const FloatType type : kFloatTypes) {
    FloatMatrix input(type, 1, 509, 509);
    for (std::size_t k = 0; k < 509; ++k) input.put(0, k, (static_cast<double>(k) - 254) / 2);
    ASSERT_NO_FATAL_FAILURE(check_every_way(input));
  }
}

TEST_P(QuantizeInt8, AnyBits) {
  for (const FloatType type : kFloatTypes) {
    for (std::uint64_t i = 0; i < 10; ++i) {
      SCOPED_TRACE("seed " + std::to_string(case_seed(500 + i)));
      Random random(case_seed(500 + i));
      FloatMatrix input(type, 40, 9, 9);  // short rows: most are finite
      for (unsigned char& byte : input.bytes) byte = static_cast<unsigned char>(random.bits());
      ASSERT_NO_FATAL_FAILURE(check_every_way(input));
    }
  }
}

TEST_P(QuantizeInt8, Extremes) {
  const double huge[] = {0x1.fffffep127, 0x1.fffffffffffffp1023, 0x1.fep127, 65504.0};
  for (const FloatType type : kFloatTypes) {
    const double largest = huge[static_cast<std::size_t>(type)];
    for (const double size : {127.0, -127.0, 0.0, 1e-6, 1e-5, 2e-5, largest, -largest}) {
      FloatMatrix input(type, 2, 200, 200);
      for (std::size_t k = 0; k < 200; ++k) {
        input.put(0, k, size);
        input.put(1, k, k % 3 == 0 ? -size : size / 3);
      }
      ASSERT_NO_FATAL_FAILURE(check_every_way(input));
    }
  }
}

// Parts of rows, each with the rest's greatest magnitude, are quantized as the whole rows are.
TEST_P(QuantizeInt8, PartsOfRows) {
  for (const FloatType type : kFloatTypes) {
    for (std::uint64_t i = 0; i < 20; ++i) {
      SCOPED_TRACE("seed " + std::to_string(case_seed(700 + i)));
      Random random(case_seed(700 + i));
      const std::size_t columns = random.from_to(1, 300);
      const std::size_t cut = random.from_to(0, columns);
      FloatMatrix input(type, 3, columns, columns);
      for (std::size_t k = 0; k < 3 * columns; ++k) {
        input.put(k / columns, k % columns, random.real(-1, 1) * (k % 7 == 0 ? 100 : 1));
      }
      if (random.chance(0.5)) {
        const double bad[] = {std::nan(""), -std::nan(""), std::numeric_limits<double>::infinity()};
        input.put(1, random.below(columns), bad[random.below(3)]);
      }
      const Expected whole =
          type == FloatType::kFloat64 ? quantize<double>(input) : quantize<float>(input);
      const auto check_part = [&](std::size_t begin, std::size_t end) {
        std::vector<double> rest(3, 0.0);
        for (std::size_t r = 0; r < 3; ++r) {
          for (std::size_t k = 0; k < columns; ++k) {
            if (k >= begin && k < end) continue;
            const double magnitude = std::fabs(input.get(r, k));
            if (std::isnan(magnitude) || magnitude > rest[r]) rest[r] = magnitude;
            if (std::isnan(rest[r])) break;
          }
        }
        std::vector<std::int8_t> values(3 * (end - begin));
        std::vector<double> scales(3);
        std::vector<std::uint8_t> nan_rows(3);
        GetParam().quantize_int8({.input = input.bytes.data() + begin * float_bytes(type),
                                  .type = type,
                                  .rows = 3,
                                  .columns = end - begin,
                                  .row_stride = input.stride,
                                  .planes = nullptr,
                                  .plane_stride = 0,
                                  .values = values.data(),
                                  .scales = scales.data(),
                                  .nan_rows = nan_rows.data(),
                                  .magnitudes = rest.data()});
        ASSERT_EQ(scales, whole.scales);
        ASSERT_EQ(nan_rows, whole.nan_rows);
        for (std::size_t r = 0; r < 3; ++r) {
          for (std::size_t k = begin; k < end; ++k) {
            ASSERT_EQ(values[r * (end - begin) + k - begin], whole.values[r * columns + k]);
          }
        }
      };
      ASSERT_NO_FATAL_FAILURE(check_part(0, cut));
      ASSERT_NO_FATAL_FAILURE(check_part(cut, columns));
    }
  }
}

TEST_P(QuantizeInt8, AGreatDepth) {
  FloatMatrix input(FloatType::kFloat32, 1, 131072, 131072);
  for (std::size_t k = 0; k < input.columns; ++k) input.put(0, k, k % 2 == 0 ? 127.0 : -127.0);
  ASSERT_NO_FATAL_FAILURE(check_every_way(input));
}

TFMBS_FOR_EVERY_SET(QuantizeInt8);

}  // namespace
}  // namespace tfmbs::kernels::test
