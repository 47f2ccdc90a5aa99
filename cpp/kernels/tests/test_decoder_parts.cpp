// rms_norm, gate and attend: against fp64 within a bound, and each set against the portable one bit
// by bit.
#include <algorithm>
#include <span>

#include "kernel_test.hpp"

namespace tfmbs::kernels::test {
namespace {

// A tensor of fp32 or bf16, and its values.
struct Values {
  FloatType type{FloatType::kFloat32};
  std::vector<std::uint8_t> bytes;
  std::size_t size{0};

  Values(FloatType of, std::size_t count) : type(of), bytes(count * float_bytes(of)), size(count) {}
  void set(std::size_t i, float value) {
    if (type == FloatType::kFloat32) {
      std::memcpy(bytes.data() + 4 * i, &value, 4);
    } else {
      const auto bits = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
      std::memcpy(bytes.data() + 2 * i, &bits, 2);
    }
  }
  [[nodiscard]] float get(std::size_t i) const {
    if (type == FloatType::kFloat32) {
      float value = 0;
      std::memcpy(&value, bytes.data() + 4 * i, 4);
      return value;
    }
    std::uint16_t bits = 0;
    std::memcpy(&bits, bytes.data() + 2 * i, 2);
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};

Values random_values(Random& random, FloatType type, std::size_t size, double spread) {
  Values made(type, size);
  for (std::size_t i = 0; i < size; ++i) {
    made.set(i, static_cast<float>(random.real(-spread, spread)));
  }
  return made;
}

// Half a unit in the last place, relative.
double unit(FloatType type) { return type == FloatType::kFloat32 ? 0x1p-24 : 0x1p-8; }

class DecoderParts : public KernelTest {
 protected:
  static FloatType random_type(Random& random) {
    return random.chance(0.5) ? FloatType::kFloat32 : FloatType::kBFloat16;
  }
  static const KernelSet& portable() { return all_kernels().front(); }
};

TEST_P(DecoderParts, RmsNorm) {
  for (std::uint64_t i = 0; i < case_count(400); ++i) {
    SCOPED_TRACE("seed " + std::to_string(case_seed(i)));
    Random random(case_seed(i));
    const FloatType type = random_type(random);
    const std::size_t size = random.from_to(1, random.chance(0.5) ? 40 : 3000);
    const Values x = random_values(random, type, size, std::pow(10.0, random.real(-3, 3)));
    const Values weight = random_values(random, type, size, 3);
    const float epsilon = random.chance(0.5) ? 1e-5F : 1e-6F;
    const auto run = [&](const KernelSet& set) {
      Values out(type, size);
      set.rms_norm({.input = x.bytes.data(),
                    .weight = weight.bytes.data(),
                    .type = type,
                    .size = size,
                    .epsilon = epsilon,
                    .out = out.bytes.data()});
      return out;
    };
    const Values out = run(GetParam());
    ASSERT_EQ(out.bytes, run(portable()).bytes);
    double squares = 0;
    for (std::size_t k = 0; k < size; ++k) squares += double{x.get(k)} * x.get(k);
    const double factor = 1 / std::sqrt(squares / static_cast<double>(size) + epsilon);
    // A sum of positive terms in fp32 is off by at most (size / 32 + 8) units; two roundings
    // follow.
    const double bound = 2.1 * unit(type) + (static_cast<double>(size) / 32 + 16) * 0x1p-24;
    for (std::size_t k = 0; k < size; ++k) {
      const double expected = x.get(k) * factor * weight.get(k);
      ASSERT_NEAR(out.get(k), expected, bound * std::abs(expected) + 1e-37) << k << " of " << size;
    }
  }
}

TEST_P(DecoderParts, Gate) {
  for (std::uint64_t i = 0; i < case_count(400); ++i) {
    SCOPED_TRACE("seed " + std::to_string(case_seed(i)));
    Random random(case_seed(i));
    const FloatType type = random_type(random);
    const bool silu = random.chance(0.5);
    const std::size_t size = random.below(300);
    Values gate = random_values(random, type, size, random.chance(0.5) ? 5 : 120);
    for (std::size_t k = 0; k < size; ++k) {
      if (random.chance(0.02)) gate.set(k, random.chance(0.5) ? 0.0F : -0.0F);
    }
    const Values up = random_values(random, type, size, 3);
    const auto run = [&](const KernelSet& set) {
      Values out(type, size);
      set.gate({.gate = gate.bytes.data(),
                .up = up.bytes.data(),
                .type = type,
                .size = size,
                .function = silu ? GateFunction::kSilu : GateFunction::kSquaredRelu,
                .out = out.bytes.data()});
      return out;
    };
    const Values out = run(GetParam());
    ASSERT_EQ(out.bytes, run(portable()).bytes);
    for (std::size_t k = 0; k < size; ++k) {
      const double x = gate.get(k);
      const double f = silu ? x / (1 + std::exp(-x)) : x > 0 ? x * x : 0.0;
      const double expected = f * up.get(k);
      ASSERT_NEAR(out.get(k), expected,
                  (2.1 * unit(type) + 6 * 0x1p-24) * std::abs(expected) + 1e-35)
          << "gate " << x << " up " << up.get(k);
    }
  }
}

TEST_P(DecoderParts, GateOfSpecialValues) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> gates{nan, kInf, -kInf, 3e38F, -3e38F, 0.0F, 1e-40F, -88.5F, 88.5F};
  for (const GateFunction function : {GateFunction::kSilu, GateFunction::kSquaredRelu}) {
    Values gate(FloatType::kFloat32, gates.size());
    Values up(FloatType::kFloat32, gates.size());
    for (std::size_t k = 0; k < gates.size(); ++k) {
      gate.set(k, gates[k]);
      up.set(k, 1.0F);
    }
    Values out(FloatType::kFloat32, gates.size());
    GetParam().gate({.gate = gate.bytes.data(),
                     .up = up.bytes.data(),
                     .type = FloatType::kFloat32,
                     .size = gates.size(),
                     .function = function,
                     .out = out.bytes.data()});
    EXPECT_TRUE(std::isnan(out.get(0)));
    EXPECT_EQ(out.get(1), kInf);
    // torch.silu(-inf) is NaN, for it is -inf / inf; the power here ends at e^88, so -inf stays.
    EXPECT_EQ(out.get(5), 0.0F);
    EXPECT_EQ(out.get(3), function == GateFunction::kSilu ? 3e38F : kInf);
    EXPECT_NEAR(out.get(8), function == GateFunction::kSilu ? 88.5 : 88.5 * 88.5, 1e-2);
  }
}

TEST_P(DecoderParts, Attend) {
  for (std::uint64_t i = 0; i < case_count(300); ++i) {
    SCOPED_TRACE("seed " + std::to_string(case_seed(i)));
    Random random(case_seed(i));
    const FloatType type = random_type(random);
    const std::size_t heads = random.from_to(1, 6);
    const std::size_t size = kFloatLanes * random.from_to(1, 20);
    const std::size_t positions = random.from_to(1, 70);
    const std::size_t key_stride = size + random.below(20);
    const std::size_t value_stride = size + random.below(20);
    const Values queries = random_values(random, FloatType::kFloat32, heads * size, 2);
    const Values keys = random_values(random, type, positions * key_stride, 1);
    const Values values = random_values(random, type, positions * value_stride, 5);
    std::vector<float> mask(positions);
    for (float& value : mask) {
      if (random.chance(0.3)) value = -std::numeric_limits<float>::infinity();
    }
    mask[random.below(positions)] = 0.0F;
    const bool masked = random.chance(0.5);
    const float scaling = 1.0F / std::sqrt(static_cast<float>(size));
    const auto run = [&](const KernelSet& set) {
      Values out(FloatType::kFloat32, heads * size);
      std::vector<float> scores(heads * attend_score_stride(positions), 77.0F);
      set.attend({.queries = reinterpret_cast<const float*>(queries.bytes.data()),
                  .heads = heads,
                  .head_size = size,
                  .keys = keys.bytes.data(),
                  .key_stride = key_stride,
                  .values = values.bytes.data(),
                  .value_stride = value_stride,
                  .type = type,
                  .positions = positions,
                  .mask = masked ? mask.data() : nullptr,
                  .scaling = scaling,
                  .scores = scores.data(),
                  .out = reinterpret_cast<float*>(out.bytes.data())});
      return out;
    };
    const Values out = run(GetParam());
    ASSERT_EQ(out.bytes, run(portable()).bytes);
    for (std::size_t h = 0; h < heads; ++h) {
      std::vector<double> weights(positions);
      double total = 0;
      for (std::size_t p = 0; p < positions; ++p) {
        double score = 0;
        for (std::size_t k = 0; k < size; ++k) {
          score += double{queries.get(h * size + k)} * keys.get(p * key_stride + k);
        }
        weights[p] = masked && mask[p] != 0.0F ? 0.0 : std::exp(score * scaling);
        total += weights[p];
      }
      // |score| <= 2 sqrt(size) <= 26, off by some (size / 16 + 4) units of the sum of magnitudes.
      const double score_error = 26.0 * (static_cast<double>(size) / 16 + 8) * 0x1p-24;
      const double bound =
          5.0 * (2 * score_error + (static_cast<double>(positions) + 16) * 0x1p-24);
      for (std::size_t k = 0; k < size; ++k) {
        double expected = 0;
        for (std::size_t p = 0; p < positions; ++p) {
          expected += weights[p] / total * values.get(p * value_stride + k);
        }
        ASSERT_NEAR(out.get(h * size + k), expected, bound);
      }
    }
  }
}

TEST_P(DecoderParts, AttendToNothing) {
  for (const std::size_t positions : {1UL, 7UL, 8UL, 21UL}) {
    const std::vector<float> ones(16 * positions, 1.0F);
    const std::vector<float> hidden(positions, -std::numeric_limits<float>::infinity());
    std::vector<float> scores(attend_score_stride(positions), 77.0F);
    std::vector<float> out(16, 99.0F);
    GetParam().attend({.queries = ones.data(),
                       .heads = 1,
                       .head_size = 16,
                       .keys = ones.data(),
                       .key_stride = 16,
                       .values = ones.data(),
                       .value_stride = 16,
                       .type = FloatType::kFloat32,
                       .positions = positions,
                       .mask = hidden.data(),
                       .scaling = 1.0F,
                       .scores = scores.data(),
                       .out = out.data()});
    EXPECT_EQ(out, std::vector(16, 0.0F));
  }
}

TFMBS_FOR_EVERY_SET(DecoderParts);

}  // namespace
}  // namespace tfmbs::kernels::test
