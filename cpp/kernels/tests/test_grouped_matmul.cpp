// Products with group scales, every layout that takes them, every set, against the formula over the
// trits themselves, bit for bit.
#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>

#include "matmul_test.hpp"
#include "tfmbs/format/group_scales.hpp"

namespace tfmbs::kernels::test {
namespace {

using Case = std::tuple<KernelSet, WeightLayout>;

// One product and its operands, on memory of exactly the documented size.
struct Grouped {
  std::size_t rows{1};
  std::size_t row_stride{0};  // of `values`
  std::size_t depth{0};
  std::size_t group{kLeastScaleGroup};
  std::size_t first_output{0};
  std::size_t outputs{1};
  std::size_t out_stride{1};
  bool wide{false};
  std::vector<std::int8_t> values;  // the activations
  TritMatrix weights;
  std::vector<float> scales;  // a row of groups for each output

  [[nodiscard]] std::size_t groups() const { return (depth + group - 1) / group; }
};

// In which way a sum is made: as documented, or otherwise.
enum class Sum { kDocumented, kFused, kBackwards };

template <typename Real>
std::vector<Real> expected_sums(const Grouped& c, Real before, Sum how = Sum::kDocumented) {
  std::vector<Real> out(span(c.rows, c.out_stride, c.outputs), before);
  for (std::size_t m = 0; m < c.rows; ++m) {
    for (std::size_t n = 0; n < c.outputs; ++n) {
      const std::int8_t* a = c.values.data() + m * c.row_stride;
      const std::int8_t* w = c.weights.trits.data() + (c.first_output + n) * c.depth;
      Real sum = 0;
      for (std::size_t i = 0; i < c.groups(); ++i) {
        const std::size_t g = how == Sum::kBackwards ? c.groups() - 1 - i : i;
        int group = 0;
        for (std::size_t k = g * c.group; k < std::min(c.depth, (g + 1) * c.group); ++k) {
          group += a[k] * w[k];
        }
        const Real scale = static_cast<Real>(c.scales[(c.first_output + n) * c.groups() + g]);
        if (how == Sum::kFused) {
          sum = std::fma(static_cast<Real>(group), scale, sum);
        } else {
          const Real scaled = static_cast<Real>(group) * scale;
          sum = sum + scaled;
        }
      }
      out[m * c.out_stride + n] = sum;
    }
  }
  return out;
}

// A NaN may be any NaN.
template <typename Real>
bool same(Real a, Real b) {
  return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b));
}

template <typename Real>
void run(const KernelSet& set, WeightLayout layout, const Grouped& c, Real* out) {
  WeightPanels panels(layout, c.weights.planes.rows(), c.depth);
  ASSERT_TRUE(panels.set_rows(0, c.weights.planes.view()).ok());
  GroupScales scales(c.weights.planes.rows(), c.depth, c.group);
  ASSERT_TRUE(scales.set_rows(0, c.scales).ok());
  if (is_int8(layout)) {
    set.grouped_int8_matmul({.activations = c.values.data(),
                             .rows = c.rows,
                             .row_stride = c.row_stride,
                             .weights = panels.view(),
                             .scales = scales.view(),
                             .first_output = c.first_output,
                             .outputs = c.outputs,
                             .out = out,
                             .out_stride = c.out_stride,
                             .wide = c.wide});
    return;
  }
  std::vector<std::int8_t> trits;
  for (std::size_t m = 0; m < c.rows; ++m) {
    const auto row = c.values.begin() + static_cast<std::ptrdiff_t>(m * c.row_stride);
    trits.insert(trits.end(), row, row + static_cast<std::ptrdiff_t>(c.depth));
  }
  const auto packed = pack_bit_planes(trits, c.rows, c.depth);
  ASSERT_TRUE(packed.ok());
  set.grouped_trit_matmul({.activations = packed.value().view().words,
                           .rows = c.rows,
                           .weights = panels.view(),
                           .scales = scales.view(),
                           .first_output = c.first_output,
                           .outputs = c.outputs,
                           .out = out,
                           .out_stride = c.out_stride,
                           .wide = c.wide});
}

// What lies between rows of `out` must stay.
template <typename Real>
void check_in(const KernelSet& set, WeightLayout layout, const Grouped& c) {
  const Real before = Real{-77.25};
  const std::vector<Real> expected = expected_sums(c, before);
  std::vector<Real> out(expected.size(), before);
  ASSERT_NO_FATAL_FAILURE(run(set, layout, c, out.data()));
  for (std::size_t i = 0; i < out.size(); ++i) {
    ASSERT_TRUE(same(out[i], expected[i]))
        << "row " << i / c.out_stride << ", output " << i % c.out_stride << ": " << out[i]
        << ", expected " << expected[i] << "; " << c.rows << " x " << c.outputs << " (from "
        << c.first_output << ") x " << c.depth << " in groups of " << c.group;
  }
}

enum class Scales { kUsual, kAnyFloat, kOne };

// A finite scale as layers have it, or any bits of a float.
float random_scale(Random& random, Scales kind) {
  if (kind == Scales::kOne) return 1.0F;
  if (kind == Scales::kUsual) return static_cast<float>(std::exp(random.real(-5, -1)));
  constexpr float kSpecial[] = {0.0F,
                                -0.0F,
                                std::numeric_limits<float>::infinity(),
                                std::numeric_limits<float>::quiet_NaN(),
                                std::numeric_limits<float>::denorm_min(),
                                std::numeric_limits<float>::max(),
                                -1.0F};
  if (random.chance(0.05)) return kSpecial[random.below(std::size(kSpecial))];
  return std::ldexp(static_cast<float>(random.real(-1, 1)),
                    static_cast<int>(random.below(30)) - 15);
}

// As random_trits, twelve trits a random number: zeros are a random number of sixteenths.
TritMatrix quick_trits(Random& random, std::size_t rows, std::size_t columns) {
  TritMatrix matrix;
  matrix.trits.resize(rows * columns);
  const std::uint64_t zeros = random.below(17);
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < matrix.trits.size(); ++i, bits >>= 5) {
    if (i % 12 == 0) bits = random.bits();
    const int sign = (bits & 16) != 0 ? 1 : -1;
    matrix.trits[i] = static_cast<std::int8_t>((bits & 15) < zeros ? 0 : sign);
  }
  auto packed = pack_bit_planes(matrix.trits, rows, columns);
  if (!packed.ok()) throw std::runtime_error(packed.error().message);
  matrix.planes = std::move(packed).value();
  return matrix;
}

Grouped random_case(Random& random, bool int8, std::size_t rows, std::size_t outputs,
                    std::size_t depth, std::size_t group, Scales kind) {
  Grouped c;
  c.rows = rows;
  c.outputs = outputs;
  c.depth = depth;
  c.group = group;
  c.row_stride = depth + random.below(3);
  c.out_stride = outputs + random.below(3);
  const bool small = outputs * depth < 100000;
  c.first_output = small ? kPanelOutputs * random.below(3) : 0;
  const std::size_t after = small ? random.below(70) : 0;
  c.weights = quick_trits(random, c.first_output + outputs + after, depth);
  c.values.resize(span(rows, c.row_stride, depth));
  const int limit = int8 ? 127 : 1;
  const bool extreme = random.chance(0.2);
  for (std::int8_t& a : c.values) {
    const int value =
        extreme ? (random.chance(0.5) ? limit : -limit)
                : static_cast<int>(random.below(2 * static_cast<std::size_t>(limit) + 1)) - limit;
    a = static_cast<std::int8_t>(value);
  }
  c.scales.resize(c.weights.planes.rows() * c.groups());
  for (float& scale : c.scales) scale = random_scale(random, kind);
  return c;
}

class GroupedMatmul : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!set().supported()) {
      GTEST_SKIP() << "this CPU does not support the kernel set \"" << set().name << '"';
    }
  }
  static const KernelSet& set() { return std::get<0>(GetParam()); }
  static WeightLayout layout() { return std::get<1>(GetParam()); }
  // Whether the set has code of its own for the layout, worth the longest cases.
  static bool own() {
    return layout() == (is_int8(layout()) ? set().int8_layouts.cached : set().trit_layouts.cached);
  }

  static void check(Grouped c) {
    c.wide = false;
    ASSERT_NO_FATAL_FAILURE(check_in<float>(set(), layout(), c));
  }
  static void check_random(std::uint64_t seed, std::size_t rows, std::size_t outputs,
                           std::size_t depth, std::size_t group) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    const Scales kind = random.chance(0.7) ? Scales::kUsual : Scales::kAnyFloat;
    ASSERT_NO_FATAL_FAILURE(
        check(random_case(random, is_int8(layout()), rows, outputs, depth, group, kind)));
  }
};

TEST_P(GroupedMatmul, EveryTailOfDepths) {
  for (const std::size_t group : kScaleGroups) {
    for (std::size_t depth = 0; depth <= 2 * group + 70; depth += depth < 70 ? 1 : 3) {
      for (const std::size_t rows : {1U, 5U}) {
        ASSERT_NO_FATAL_FAILURE(check_random(case_seed(20000 + 1000 * group + 2 * depth + rows),
                                             rows, 20, depth, group));
      }
    }
  }
}

TEST_P(GroupedMatmul, EveryTailOfRows) {
  for (const std::size_t group : kScaleGroups) {
    for (std::size_t rows = 0; rows <= 70; ++rows) {
      ASSERT_NO_FATAL_FAILURE(
          check_random(case_seed(400000 + 100 * group + rows), rows, 37, group + 40, group));
    }
  }
}

TEST_P(GroupedMatmul, EveryTailOfOutputs) {
  for (std::size_t outputs = 0; outputs <= 600; outputs += outputs < 135 ? 1 : 29) {
    for (const std::size_t rows : {1U, 2U, 3U, 9U}) {
      ASSERT_NO_FATAL_FAILURE(check_random(case_seed(500000 + 10 * outputs + rows), rows, outputs,
                                           290, kScaleGroups[(outputs + rows) % 4]));
    }
  }
}

TEST_P(GroupedMatmul, RandomShapes) {
  for (std::size_t i = 0; i < case_count(own() ? 600 : 60); ++i) {
    Random random(case_seed(600000 + i));
    const std::size_t group = kScaleGroups[random.below(4)];
    const std::size_t rows = random.chance(0.3) ? 1 : random.from_to(1, 70);
    ASSERT_NO_FATAL_FAILURE(check_random(case_seed(700000 + i), rows, random.from_to(1, 150),
                                         random.from_to(1, 1500), group));
  }
}

// Beyond every block that a kernel cuts rows and depths into.
TEST_P(GroupedMatmul, LargerThanEveryBlock) {
  constexpr std::array<std::array<std::size_t, 3>, 9> kShapes = {{{1, 70, 8200},
                                                                  {1, 5, 70000},
                                                                  {2, 67, 17000},
                                                                  {7, 5, 33000},
                                                                  {67, 70, 1500},
                                                                  {130, 20, 2500},
                                                                  {33, 300, 700},
                                                                  {64, 65, 3000},
                                                                  {9, 3, 66001}}};
  for (std::size_t i = 0; i < kShapes.size(); ++i) {
    if (!own() && i % 3 != 0) continue;
    for (const std::size_t group : kScaleGroups) {
      ASSERT_NO_FATAL_FAILURE(check_random(case_seed(800000 + 10 * i + group), kShapes[i][0],
                                           kShapes[i][1], kShapes[i][2], group));
    }
  }
}

// The largest sums that a group allows, which is where a narrow partial sum would overflow: with a
// scale of one they come out as they are.
TEST_P(GroupedMatmul, Extremes) {
  const int limit = is_int8(layout()) ? 127 : 1;
  Random random(case_seed(900000));
  for (const std::size_t group : kScaleGroups) {
    for (const std::size_t rows : {1UL, 2UL, 8UL, 9UL}) {
      for (const std::size_t depth : {group - 1, group, 3 * group, 3 * group + 17}) {
        // Whole groups of one sign, or words' halves against each other.
        for (int kind = 0; kind < 6; ++kind) {
          Grouped c = random_case(random, is_int8(layout()), rows, 67, depth, group, Scales::kOne);
          const auto sign = [&](std::size_t k, int bit) {
            const std::size_t half = bit == 0 ? k % 4 / 2 : k / 16 % 2;
            return kind < 2 ? kind == 0 : (half == 0) == (kind % 2 == 0);
          };
          for (std::size_t i = 0; i < c.values.size(); ++i) {
            const std::size_t k = i % c.row_stride;
            c.values[i] = static_cast<std::int8_t>(sign(k, kind / 4) ? limit : -limit);
          }
          const bool alike = random.chance(0.5);
          for (std::size_t i = 0; i < c.weights.trits.size(); ++i) {
            const bool plus = alike ? sign(i % depth, kind / 4) : i / depth % 2 == 0;
            c.weights.trits[i] = plus ? std::int8_t{1} : std::int8_t{-1};
          }
          auto planes = pack_bit_planes(c.weights.trits, c.weights.planes.rows(), depth);
          ASSERT_TRUE(planes.ok());
          c.weights.planes = std::move(planes).value();
          ASSERT_NO_FATAL_FAILURE(check(std::move(c)));
        }
      }
    }
  }
}

TEST_P(GroupedMatmul, Wide) {
  for (std::size_t i = 0; i < case_count(60); ++i) {
    Random random(case_seed(950000 + i));
    const std::size_t group = kScaleGroups[i % 4];
    const Scales kind = random.chance(0.7) ? Scales::kUsual : Scales::kAnyFloat;
    Grouped c = random_case(random, is_int8(layout()), random.from_to(1, 70),
                            random.from_to(1, 150), random.from_to(0, 700), group, kind);
    c.wide = true;
    ASSERT_NO_FATAL_FAILURE(check_in<double>(set(), layout(), c)) << "case " << i;
  }
}

// The cases tell the formula from one that fuses its operations, and from another order of groups.
TEST(GroupedMatmulCases, TellMutantsApart) {
  for (const std::size_t group : kScaleGroups) {
    for (const Sum mutant : {Sum::kFused, Sum::kBackwards}) {
      Random random(case_seed(960000 + group));
      Grouped c = random_case(random, true, 5, 37, 6 * group, group, Scales::kUsual);
      c.weights = random_trits(random, c.weights.planes.rows(), c.depth, 0.3);
      const std::vector<float> right = expected_sums(c, 0.0F);
      const std::vector<float> wrong = expected_sums(c, 0.0F, mutant);
      const std::vector<double> wide = expected_sums(c, 0.0);
      EXPECT_NE(right, wrong) << "groups of " << group;
      EXPECT_NE(right, std::vector<float>(wide.begin(), wide.end())) << "groups of " << group;
    }
  }
}

// A set's layout for cached weights takes group scales, which is where its code of its own is.
TEST(GroupedMatmulCases, EverySetHasALayout) {
  for (const KernelSet& set : all_kernels()) {
    EXPECT_TRUE(takes_group_scales(set.trit_layouts.cached)) << set.name;
    EXPECT_TRUE(takes_group_scales(set.int8_layouts.cached)) << set.name;
  }
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const KernelSet& set : all_kernels()) {
    for (const WeightLayout layout : kWeightLayouts) {
      if (takes_group_scales(layout)) cases.emplace_back(set, layout);
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Kernels, GroupedMatmul, ::testing::ValuesIn(all_cases()),
                         [](const ::testing::TestParamInfo<Case>& test) {
                           return std::string(std::get<0>(test.param).name) +
                                  layout_name(std::get<1>(test.param));
                         });

}  // namespace
}  // namespace tfmbs::kernels::test
