// Random shapes and values, tens of thousands for each layout: portable code against plain sums of
// the trits, every other set against portable code, bit for bit.
#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "matmul_test.hpp"

namespace tfmbs::kernels::test {
namespace {

struct Shape {
  std::size_t rows;
  std::size_t outputs;
  std::size_t depth;
};

// Next to a multiple of `unit`, at most `most`.
std::size_t next_to_multiple(Random& random, std::size_t unit, std::size_t most) {
  const std::size_t multiple = unit * random.from_to(1, std::max<std::size_t>(1, most / unit));
  return multiple - 1 + random.below(3);
}

// Small and full of tails.
Shape small_shape(Random& random) {
  Shape shape{random.from_to(1, 9), random.from_to(1, 70), random.from_to(0, 100)};
  switch (random.below(16)) {
    case 0:
      shape.rows = 0;
      break;
    case 1:
      shape.rows = next_to_multiple(random, 4, 20);
      break;
    case 2:
      shape.outputs = next_to_multiple(random, kPanelOutputs, 320);
      break;
    case 3:
      shape.outputs = random.below(2) == 0 ? 0 : random.from_to(71, 200);
      break;
    case 4:
      shape.depth = next_to_multiple(random, 20, 400);
      shape.outputs = random.from_to(1, 20);
      break;
    case 5:
      shape.depth = next_to_multiple(random, 64, 512);
      shape.outputs = random.from_to(1, 20);
      break;
    default:
      break;
  }
  return shape;
}

// Over the blocks that kernels cut rows, outputs and depths into.
Shape large_shape(Random& random) {
  switch (random.below(4)) {
    case 0:
      return {next_to_multiple(random, 32, 160), random.from_to(1, 70), random.from_to(0, 70)};
    case 1:
      return {next_to_multiple(random, 64, 128), random.from_to(1, 20), random.from_to(900, 2600)};
    case 2:
      return {random.from_to(1, 9), random.from_to(200, 700), random.from_to(20, 200)};
    default:
      return {random.from_to(1, 5), random.from_to(1, 70), next_to_multiple(random, 512, 9000)};
  }
}

// What a set may take in another way, and rows that are left over from that.
Shape many_rows_shape(Random& random) {
  return {random.chance(0.5) ? next_to_multiple(random, 8, 140) : random.from_to(16, 140),
          random.from_to(240, 450),
          random.chance(0.5) ? next_to_multiple(random, 48, 2100) : random.from_to(0, 300)};
}

// Up to, and beyond, the depths of the largest models.
Shape deep_shape(Random& random) {
  return {random.from_to(1, 3), random.chance(0.3) ? kPanelOutputs : random.from_to(1, 3),
          random.chance(0.3) ? 131072 : random.from_to(60000, 280000)};
}

// Bit planes from whole words: all zero, all +1, all -1, or random of some density.
BitPlaneMatrix random_planes(Random& random, std::size_t rows, std::size_t depth) {
  BitPlaneMatrix planes(rows, depth);
  const std::size_t kind = random.below(10);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t k = 0; k < depth; k += 64) {
      std::uint64_t nonzero = random.bits();
      std::uint64_t negative = random.bits();
      if (kind == 0) nonzero = 0;
      if (kind == 1) nonzero &= random.bits() & random.bits();
      if (kind >= 2 && kind < 7) nonzero |= random.bits();
      if (kind >= 7) nonzero = ~std::uint64_t{0};
      if (kind == 8) negative = 0;
      if (kind == 9) negative = ~std::uint64_t{0};
      const std::uint64_t valid =
          depth - k < 64 ? (std::uint64_t{1} << (depth - k)) - 1 : ~std::uint64_t{0};
      std::uint64_t* word = planes.row(r) + bit_plane_word(k);
      word[0] = nonzero & valid;
      word[kPlaneWords] = nonzero & negative & valid;
    }
  }
  return planes;
}

// -127...127, or extremes alone.
std::vector<std::int8_t> random_values(Random& random, std::size_t size) {
  std::vector<std::int8_t> values(size);
  const std::size_t kind = random.below(8);
  for (std::size_t i = 0; i < size; i += 8) {
    std::uint64_t bits = random.bits();
    for (std::size_t j = i; j < std::min(size, i + 8); ++j, bits >>= 8) {
      const int value = std::max(-127, static_cast<int>(bits & 0xFF) - 128);
      values[j] = static_cast<std::int8_t>(kind == 0   ? 127
                                           : kind == 1 ? -127
                                           : kind == 2 ? (value < 0 ? -127 : 127)
                                                       : value);
    }
  }
  return values;
}

std::vector<std::int8_t> trits_of(BitPlaneView planes) {
  std::vector<std::int8_t> trits(planes.rows * planes.trits);
  if (!unpack_bit_planes(planes, trits).ok()) throw std::runtime_error("unpack_bit_planes");
  return trits;
}

class MatmulProperty : public ::testing::TestWithParam<WeightLayout> {
 protected:
  // One case: sums by portable code, and by every other set that runs here.
  void check(std::uint64_t seed, Shape (*shape_of)(Random&)) {
    Random random(seed);
    const Shape shape = shape_of(random);
    const bool int8 = is_int8(GetParam());
    const bool small = shape.outputs * shape.depth < 10000;
    const std::size_t first = small && random.below(4) == 0 ? kPanelOutputs : 0;
    const std::size_t after = small && random.below(2) == 0 ? random.below(70) : 0;
    const BitPlaneMatrix trits = random_planes(random, first + shape.outputs + after, shape.depth);
    WeightPanels weights(GetParam(), trits.rows(), shape.depth);
    ASSERT_TRUE(weights.set_rows(0, trits.view()).ok());

    const BitPlaneMatrix planes = random_planes(random, int8 ? 0 : shape.rows, shape.depth);
    const std::size_t row_stride = shape.depth + random.below(4);
    const std::size_t offset = random.below(4);
    const std::vector<std::int8_t> values =
        int8 ? random_values(random, offset + span(shape.rows, row_stride, shape.depth))
             : trits_of(planes.view());
    const Products products{.rows = shape.rows,
                            .planes = planes.view().words,
                            .values = int8 ? values.data() + offset : values.data(),
                            .row_stride = int8 ? row_stride : shape.depth,
                            .weights = weights.view(),
                            .first_output = first,
                            .outputs = shape.outputs,
                            .out_stride = shape.outputs + random.below(3)};
    const auto what = [&] {
      return "seed " + std::to_string(seed) + ": " + std::to_string(shape.rows) +
             " rows, outputs " + std::to_string(first) + " + " + std::to_string(shape.outputs) +
             " of " + std::to_string(trits.rows()) + ", depth " + std::to_string(shape.depth);
    };
    const auto before = static_cast<std::int32_t>(random.bits());
    std::vector<std::int32_t> expected(span(shape.rows, products.out_stride, shape.outputs),
                                       before);
    products.run(all_kernels().front(), expected.data());
    if (shape.rows * shape.outputs * shape.depth < 8000 || random.below(16) == 0) {
      ASSERT_EQ(expected, plain_sums(products, trits.view(), before)) << what();
    }
    std::vector<std::int32_t> out;
    for (const KernelSet& set : all_kernels().subspan(1)) {
      if (!set.supported()) continue;
      for (const bool scratch : {false, true}) {
        if (scratch && (!int8 || set.int8_scratch.bytes == 0)) continue;
        out.assign(expected.size(), before);
        products.run(set, out.data(), scratch ? Scratch(set).data() : nullptr);
        if (out != expected) {  // the message costs more than the case
          ASSERT_EQ(out, expected) << set.name << (scratch ? " with scratch, " : ", ") << what();
        }
      }
    }
  }

  void check_many(std::uint64_t first_seed, std::size_t count, Shape (*shape_of)(Random&)) {
    for (std::size_t i = 0; i < case_count(count); ++i) {
      ASSERT_NO_FATAL_FAILURE(check(case_seed(first_seed + i), shape_of));
    }
  }
};

// A build with assertions, which sanitizers use, takes twenty times as long.
#ifdef NDEBUG
constexpr std::size_t kCases = 40000;
#else
constexpr std::size_t kCases = 4000;
#endif

TEST_P(MatmulProperty, SmallShapes) { check_many(0, kCases, small_shape); }
TEST_P(MatmulProperty, LargeShapes) { check_many(1000000, kCases / 100, large_shape); }
TEST_P(MatmulProperty, ManyRows) { check_many(3000000, kCases / 200, many_rows_shape); }
TEST_P(MatmulProperty, DeepShapes) { check_many(2000000, kCases / 2500, deep_shape); }

INSTANTIATE_TEST_SUITE_P(Layouts, MatmulProperty, ::testing::ValuesIn(kWeightLayouts),
                         [](const ::testing::TestParamInfo<WeightLayout>& test) {
                           return std::string(layout_name(test.param));
                         });

}  // namespace
}  // namespace tfmbs::kernels::test
