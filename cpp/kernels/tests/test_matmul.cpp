// Both products, every layout, every set, against sums over the trits themselves.
#include <algorithm>
#include <array>
#include <tuple>

#include "matmul_test.hpp"

namespace tfmbs::kernels::test {
namespace {

using Case = std::tuple<KernelSet, WeightLayout>;

class Matmul : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!set().supported()) {
      GTEST_SKIP() << "this CPU does not support the kernel set \"" << set().name << '"';
    }
  }
  static const KernelSet& set() { return std::get<0>(GetParam()); }
  static WeightLayout layout() { return std::get<1>(GetParam()); }

  // On memory of exactly the documented size; what lies between rows of `out` must stay.
  void run(const std::vector<std::int8_t>& activations, std::size_t rows, std::size_t row_stride,
           const WeightPanels& weights, std::size_t first_output, std::size_t outputs,
           std::int32_t* out, std::size_t out_stride) {
    const std::size_t depth = weights.view().depth;
    std::vector<std::int8_t> trits;
    for (std::size_t m = 0; m < rows && !is_int8(layout()); ++m) {
      const auto row = activations.begin() + static_cast<std::ptrdiff_t>(m * row_stride);
      trits.insert(trits.end(), row, row + static_cast<std::ptrdiff_t>(depth));
    }
    auto packed = pack_bit_planes(trits, is_int8(layout()) ? 0 : rows, depth);
    ASSERT_TRUE(packed.ok());
    const Products products{.rows = rows,
                            .planes = packed.value().view().words,
                            .values = activations.data(),
                            .row_stride = row_stride,
                            .weights = weights.view(),
                            .first_output = first_output,
                            .outputs = outputs,
                            .out_stride = out_stride};
    const std::vector<std::int32_t> before(out, out + span(rows, out_stride, outputs));
    products.run(set(), out);
    const Scratch scratch(set());
    if (!is_int8(layout()) || scratch.data() == nullptr) return;
    std::vector<std::int32_t> with_scratch = before;
    products.run(set(), with_scratch.data(), scratch.data());
    ASSERT_EQ(with_scratch, std::vector<std::int32_t>(out, out + before.size()))
        << "with scratch: " << rows << " x " << outputs << " (from " << first_output << ") x "
        << weights.view().depth;
  }

  void check(const std::vector<std::int8_t>& activations, std::size_t rows, std::size_t row_stride,
             const TritMatrix& trits, std::size_t first_output, std::size_t outputs,
             Random& random) {
    const std::size_t depth = trits.planes.trits();
    WeightPanels weights(layout(), trits.planes.rows(), depth);
    ASSERT_TRUE(weights.set_rows(0, trits.planes.view()).ok());
    const std::size_t stride = outputs + random.below(3);
    const auto before = static_cast<std::int32_t>(random.bits());
    std::vector<std::int32_t> out(span(rows, stride, outputs), before);
    run(activations, rows, row_stride, weights, first_output, outputs, out.data(), stride);
    const Products products{.rows = rows,
                            .planes = nullptr,
                            .values = activations.data(),
                            .row_stride = row_stride,
                            .weights = weights.view(),
                            .first_output = first_output,
                            .outputs = outputs,
                            .out_stride = stride};
    ASSERT_EQ(out, plain_sums(products, trits.planes.view(), before))
        << rows << " x " << outputs << " (from " << first_output << ") x " << depth;
  }

  void check_random(std::uint64_t seed, std::size_t rows, std::size_t outputs, std::size_t depth) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    const std::size_t before = depth > 10000 ? 0 : kPanelOutputs * random.below(3);
    const std::size_t after = depth > 10000 ? 0 : random.below(70);
    const TritMatrix weights =
        random_trits(random, before + outputs + after, depth, random.real(0, 1));
    const std::size_t stride = depth + random.below(3);
    std::vector<std::int8_t> activations(span(rows, stride, depth));
    const bool extreme = random.chance(0.2);
    for (std::int8_t& a : activations) {
      const int limit = is_int8(layout()) ? 127 : 1;
      const int value =
          extreme ? (random.chance(0.5) ? limit : -limit)
                  : static_cast<int>(random.below(2 * static_cast<std::size_t>(limit) + 1)) - limit;
      a = static_cast<std::int8_t>(value);
    }
    ASSERT_NO_FATAL_FAILURE(check(activations, rows, stride, weights, before, outputs, random));
  }
};

TEST_P(Matmul, EveryTailOfRowsAndDepths) {
  for (std::size_t rows = 0; rows <= 18; ++rows) {
    ASSERT_NO_FATAL_FAILURE(check_random(case_seed(10000 + rows), rows, 70, 45));
  }
  for (std::size_t depth = 0; depth <= 140; ++depth) {
    ASSERT_NO_FATAL_FAILURE(check_random(case_seed(11000 + depth), 5, 20, depth));
    ASSERT_NO_FATAL_FAILURE(check_random(case_seed(12000 + depth), 1, 20, depth));
  }
}

TEST_P(Matmul, EveryTailOfOutputs) {
  for (std::size_t outputs = 0; outputs <= 330; outputs += outputs < 70 ? 1 : 13) {
    for (const std::size_t rows : {1U, 2U, 3U, 5U}) {
      ASSERT_NO_FATAL_FAILURE(
          check_random(case_seed(13000 + 1000 * rows + outputs), rows, outputs, 33));
    }
  }
}

// Where a set takes many rows and outputs in another way.
TEST_P(Matmul, EveryTailOfManyRows) {
  for (std::size_t rows = 15; rows <= 80; rows += rows < 26 ? 1 : 9) {
    ASSERT_NO_FATAL_FAILURE(check_random(case_seed(16000 + rows), rows, 260, 100));
  }
  for (std::size_t outputs = 255; outputs <= 330; outputs += outputs < 259 ? 1 : 7) {
    ASSERT_NO_FATAL_FAILURE(check_random(case_seed(17000 + outputs), 16, outputs, 97));
  }
  for (std::size_t depth = 0; depth <= 260; depth += depth < 100 ? 1 : 3) {
    ASSERT_NO_FATAL_FAILURE(check_random(case_seed(18000 + depth), 17, 257, depth));
  }
}

// Beyond every block that a kernel cuts rows and depths into.
TEST_P(Matmul, LargerThanEveryBlock) {
  constexpr std::array<std::array<std::size_t, 3>, 14> kShapes = {{{1, 70, 9000},
                                                                   {2, 5, 70000},
                                                                   {67, 70, 1100},
                                                                   {130, 20, 2500},
                                                                   {5, 5, 66000},
                                                                   {33, 300, 300},
                                                                   {9, 20, 17001},
                                                                   {1, 2, 131072},
                                                                   {1, 64, 131039},
                                                                   {1, 130, 131041},
                                                                   {1, 64, 270000},
                                                                   {67, 330, 2600},
                                                                   {16, 256, 17001},
                                                                   {130, 321, 961}}};
  for (std::size_t i = 0; i < kShapes.size(); ++i) {
    ASSERT_NO_FATAL_FAILURE(
        check_random(case_seed(15000 + i), kShapes[i][0], kShapes[i][1], kShapes[i][2]));
  }
}

// The largest sums that a depth allows, which is where a narrow partial sum would overflow.
TEST_P(Matmul, Extremes) {
  const int limit = is_int8(layout()) ? 127 : 1;
  for (const std::size_t depth :
       {1UL, 31UL, 123UL, 124UL, 125UL, 256UL, 257UL, 4096UL, 8128UL, 8129UL, 33000UL, 131072UL}) {
    for (const int w : {-1, 1}) {
      for (const std::size_t rows : {1UL, 9UL}) {
        const std::size_t outputs = depth <= 10000 ? 65 : rows == 1 ? kPanelOutputs : 2;
        WeightPanels weights(layout(), outputs, depth);
        const TritMatrix trits = constant_trits(outputs, depth, static_cast<std::int8_t>(w));
        ASSERT_TRUE(weights.set_rows(0, trits.planes.view()).ok());
        for (const int a : {-limit, limit}) {
          const std::vector<std::int8_t> activations(rows * depth, static_cast<std::int8_t>(a));
          std::vector<std::int32_t> out(rows * outputs);
          ASSERT_NO_FATAL_FAILURE(
              run(activations, rows, depth, weights, 0, outputs, out.data(), outputs));
          const std::vector<std::int32_t> expected(out.size(),
                                                   static_cast<std::int32_t>(depth) * a * w);
          ASSERT_EQ(out, expected)
              << "depth " << depth << ", activations " << a << ", weights " << w;
        }
      }
    }
  }
}

// And where partial sums of many rows are narrow.
class Int8Matmul : public Matmul {};

TEST_P(Int8Matmul, ExtremesOfManyRows) {
  constexpr std::size_t kRows = 17;
  constexpr std::size_t kOutputs = 256;
  for (const std::size_t depth : {959UL, 960UL, 961UL, 1920UL, 4096UL, 131072UL}) {
    if (depth > 10000 && set().int8_scratch.bytes == 0) continue;
    for (const int w : {-1, 1}) {
      WeightPanels weights(layout(), kOutputs, depth);
      const TritMatrix trits = constant_trits(kOutputs, depth, static_cast<std::int8_t>(w));
      ASSERT_TRUE(weights.set_rows(0, trits.planes.view()).ok());
      for (const int a : {-127, 127}) {
        const std::vector<std::int8_t> activations(kRows * depth, static_cast<std::int8_t>(a));
        std::vector<std::int32_t> out(kRows * kOutputs);
        ASSERT_NO_FATAL_FAILURE(
            run(activations, kRows, depth, weights, 0, kOutputs, out.data(), kOutputs));
        const std::vector<std::int32_t> expected(out.size(),
                                                 static_cast<std::int32_t>(depth) * a * w);
        ASSERT_EQ(out, expected) << "depth " << depth << ", activations " << a << ", weights " << w;
      }
    }
  }
}

// Scratch is for many rows and outputs, and a set that asks for it has a use for it.
class MatmulWithScratch : public Matmul {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(MatmulWithScratch);

TEST_P(MatmulWithScratch, UsesIt) {
  const auto untouched = [&](std::size_t rows, std::size_t outputs) {
    constexpr std::size_t kDepth = 100;
    const WeightPanels weights(layout(), outputs, kDepth);
    const std::vector<std::int8_t> activations(rows * kDepth, 1);
    std::vector<std::int32_t> out(rows * outputs);
    const Scratch scratch(set());
    Products{.rows = rows,
             .planes = nullptr,
             .values = activations.data(),
             .row_stride = kDepth,
             .weights = weights.view(),
             .first_output = 0,
             .outputs = outputs,
             .out_stride = outputs}
        .run(set(), out.data(), scratch.data());
    return std::all_of(scratch.data(), scratch.data() + set().int8_scratch.bytes,
                       [](std::byte value) { return value == std::byte{0xFF}; });
  };
  const auto& [bytes, rows, outputs] = set().int8_scratch;
  EXPECT_FALSE(untouched(rows, outputs));
  EXPECT_TRUE(untouched(rows - 1, outputs));
  EXPECT_TRUE(untouched(rows, outputs - 1));
}

// Of is_own() cases alone.
class MatmulOfItsOwn : public Matmul {};

TEST_P(MatmulOfItsOwn, TheGreatestDepth) {
  const int limit = is_int8(layout()) ? 127 : 1;
  BitPlaneMatrix ones(1, kMaxDepth);
  for (std::size_t k = 0; k < kMaxDepth; k += 64) {
    ones.data()[bit_plane_word(k)] = ~std::uint64_t{0};
  }
  WeightPanels weights(layout(), 1, kMaxDepth);
  ASSERT_TRUE(weights.set_rows(0, ones.view()).ok());
  std::vector<std::int8_t> activations(kMaxDepth, static_cast<std::int8_t>(limit));
  const auto greatest = static_cast<std::int32_t>(kMaxDepth) * limit;
  std::int32_t out[2] = {};
  ASSERT_NO_FATAL_FAILURE(run(activations, 1, kMaxDepth, weights, 0, 1, out, 1));
  EXPECT_EQ(out[0], greatest);
  // In portable code two rows are as one.
  if (set().name == "portable") return;
  activations.insert(activations.end(), kMaxDepth, static_cast<std::int8_t>(-limit));
  ASSERT_NO_FATAL_FAILURE(run(activations, 2, kMaxDepth, weights, 0, 1, out, 1));
  EXPECT_EQ(out[0], greatest);
  EXPECT_EQ(out[1], -greatest);
}

// Code of its own: no variant before it has the function, and the layout is one that the variant is
// fast with. Any other layout it reads in portable code.
bool is_own(const KernelSet& set, WeightLayout layout) {
  if (is_int8(layout) ? is_inherited(set, &KernelSet::int8_matmul)
                      : is_inherited(set, &KernelSet::trit_matmul)) {
    return false;
  }
  const PreferredLayouts& own = is_int8(layout) ? set.int8_layouts : set.trit_layouts;
  return set.name == "portable" || layout == own.cached || layout == own.streamed;
}

// Every variant and layout that `wanted` takes; where few are to run, those of the variant's own
// code.
template <typename Wanted>
std::vector<Case> cases(const Wanted& wanted) {
  std::vector<Case> found;
  for (const KernelSet& set : all_kernels()) {
    for (const WeightLayout layout : kWeightLayouts) {
      if (!wanted(set, layout) || (test_percent() < 100 && !is_own(set, layout))) continue;
      found.emplace_back(set, layout);
    }
  }
  return found;
}

bool any_case(const KernelSet&, WeightLayout) { return true; }
bool int8_case(const KernelSet&, WeightLayout layout) { return is_int8(layout); }
bool case_with_scratch(const KernelSet& set, WeightLayout layout) {
  return is_int8(layout) && set.int8_scratch.bytes > 0;
}
// The greatest depth takes an emulated CPU minutes in portable code.
bool own_case(const KernelSet& set, WeightLayout layout) {
  return is_own(set, layout) && (set.name != "portable" || test_percent() == 100);
}

std::string case_name(const ::testing::TestParamInfo<Case>& test) {
  return std::string(std::get<0>(test.param).name) + layout_name(std::get<1>(test.param));
}

INSTANTIATE_TEST_SUITE_P(Kernels, Matmul, ::testing::ValuesIn(cases(any_case)), case_name);
INSTANTIATE_TEST_SUITE_P(Kernels, MatmulOfItsOwn, ::testing::ValuesIn(cases(own_case)), case_name);
INSTANTIATE_TEST_SUITE_P(Kernels, Int8Matmul, ::testing::ValuesIn(cases(int8_case)), case_name);
INSTANTIATE_TEST_SUITE_P(Kernels, MatmulWithScratch, ::testing::ValuesIn(cases(case_with_scratch)),
                         case_name);

TEST(PreferredLayouts, BelongToTheirProduct) {
  for (const KernelSet& set : all_kernels()) {
    EXPECT_FALSE(is_int8(set.trit_layouts.cached)) << set.name;
    EXPECT_FALSE(is_int8(set.trit_layouts.streamed)) << set.name;
    EXPECT_TRUE(is_int8(set.int8_layouts.cached)) << set.name;
    EXPECT_TRUE(is_int8(set.int8_layouts.streamed)) << set.name;
  }
}

}  // namespace
}  // namespace tfmbs::kernels::test
