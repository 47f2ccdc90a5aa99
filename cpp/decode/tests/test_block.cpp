// run_block against loops in fp64 over the formulas of a decoder block.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "tfmbs/decode/block.hpp"
#include "threaded_executor.hpp"

namespace tfmbs::decode {
namespace {

using execution::Executor;
using execution::SerialExecutor;
using execution::ThreadedExecutor;
using kernels::FloatType;
using kernels::GateFunction;
using Matrix = std::vector<float>;

// A block of random dense weights, and one call of it.
struct Case {
  explicit Case(std::uint64_t seed) : random(seed) {
    shape.type = FloatType::kFloat32;
    shape.key_heads = 1 + random() % 3;
    shape.heads = shape.key_heads * (1 + random() % 4);
    shape.head_size = 16 * (1 + random() % 3);
    shape.hidden = 8 + random() % 60;
    shape.feed_forward = 8 + random() % 90;
    shape.scaling = 1.0F / std::sqrt(static_cast<float>(shape.head_size));
    shape.gate = random() % 2 == 0 ? GateFunction::kSilu : GateFunction::kSquaredRelu;
    sub_norms = random() % 2 == 0;
    masked = random() % 2 == 0;
    sequences = 1 + random() % 3;
    position = random() % 20;
    capacity = position + 1 + random() % 5;
    const std::size_t query = shape.heads * shape.head_size;
    const std::size_t key = shape.key_heads * shape.head_size;
    const std::size_t outputs[] = {
        query, key, key, shape.hidden, shape.feed_forward, shape.feed_forward, shape.hidden};
    const std::size_t inputs[] = {shape.hidden, shape.hidden, shape.hidden,      query,
                                  shape.hidden, shape.hidden, shape.feed_forward};
    for (std::size_t p = 0; p < kProducts; ++p) {
      out_sizes.push_back(outputs[p]);
      in_sizes.push_back(inputs[p]);
      weights.push_back(values(outputs[p] * inputs[p], 1.0 / std::sqrt(inputs[p])));
    }
    for (const std::size_t size : {shape.hidden, shape.hidden, query, shape.feed_forward}) {
      norm_weights.push_back(values(size, 1));
    }
    hidden = values(sequences * shape.hidden, 1);
    angles = values(2 * sequences * shape.head_size, 0.7);
    keys = values(sequences * key * capacity, 1);
    cached = values(sequences * key * capacity, 1);
    mask = Matrix(sequences * (position + 1), 0.0F);
    for (std::size_t i = 0; i < mask.size(); ++i) {
      if (i % (position + 1) != position && random() % 3 == 0) {
        mask[i] = -std::numeric_limits<float>::infinity();
      }
    }
  }

  Matrix values(std::size_t size, double spread) {
    std::normal_distribution<double> normal(0.0, spread);
    Matrix made(size);
    for (float& value : made) value = static_cast<float>(normal(random));
    return made;
  }

  // One entry of a cache: sequence, head of keys, position, element.
  [[nodiscard]] std::size_t at(std::size_t s, std::size_t h, std::size_t p, std::size_t k) const {
    return ((s * shape.key_heads + h) * capacity + p) * shape.head_size + k;
  }

  [[nodiscard]] std::vector<double> product(Product which, const std::vector<double>& in) const {
    const auto p = static_cast<std::size_t>(which);
    std::vector<double> out(out_sizes[p]);
    for (std::size_t n = 0; n < out.size(); ++n) {
      for (std::size_t k = 0; k < in.size(); ++k) out[n] += in[k] * weights[p][n * in.size() + k];
    }
    return out;
  }

  [[nodiscard]] Norms norms() const {
    return {.input = norm_weights[0].data(),
            .post_attention = norm_weights[1].data(),
            .attention_output = sub_norms ? norm_weights[2].data() : nullptr,
            .feed_forward = sub_norms ? norm_weights[3].data() : nullptr,
            .epsilon = 1e-5F};
  }

  // The keys and values in `to_keys` and `to_values` get the new position.
  Matrix run(const Executor& executor, Matrix& to_keys, Matrix& to_values) const {
    Matrix out(hidden.size(), 99.0F);
    const auto multiply = [&](Product which, const linear::LinearArgs& args) {
      const auto p = static_cast<std::size_t>(which);
      for (std::size_t s = 0; s < args.samples; ++s) {
        const float* in = static_cast<const float*>(args.input) + s * in_sizes[p];
        const auto made = product(which, std::vector<double>(in, in + in_sizes[p]));
        for (std::size_t n = 0; n < made.size(); ++n) {
          static_cast<float*>(args.output)[s * made.size() + n] = static_cast<float>(made[n]);
        }
      }
    };
    const std::size_t head = capacity * shape.head_size;
    run_block(shape, norms(),
              {.hidden = hidden.data(),
               .sequences = sequences,
               .cosines = angles.data(),
               .sines = angles.data() + sequences * shape.head_size,
               .angle_stride = shape.head_size,
               .cache = {.keys = to_keys.data(),
                         .values = to_values.data(),
                         .sequence_stride = shape.key_heads * head,
                         .head_stride = head,
                         .position_stride = shape.head_size,
                         .capacity = capacity},
               .position = position,
               .mask = masked ? mask.data() : nullptr,
               .mask_stride = position + 1,
               .out = out.data()},
              multiply, executor);
    return out;
  }

  static std::vector<double> norm(const std::vector<double>& x, const Matrix& weight) {
    double squares = 0;
    for (const double value : x) squares += value * value;
    const double factor = 1 / std::sqrt(squares / static_cast<double>(x.size()) + 1e-5);
    std::vector<double> out(x.size());
    for (std::size_t k = 0; k < x.size(); ++k) out[k] = x[k] * factor * weight[k];
    return out;
  }

  void rotate(std::vector<double>& x, std::size_t s) const {
    const std::size_t size = shape.head_size;
    const float* cosines = angles.data() + s * size;
    const float* sines = angles.data() + (sequences + s) * size;
    for (std::size_t h = 0; h < x.size() / size; ++h) {
      const std::vector<double> old(x.begin() + static_cast<std::ptrdiff_t>(h * size),
                                    x.begin() + static_cast<std::ptrdiff_t>((h + 1) * size));
      for (std::size_t k = 0; k < size; ++k) {
        const double turned = k < size / 2 ? -old[k + size / 2] : old[k - size / 2];
        x[h * size + k] = old[k] * cosines[k] + turned * sines[k];
      }
    }
  }

  [[nodiscard]] std::vector<double> expected(std::size_t s) const {
    const auto first = hidden.begin() + static_cast<std::ptrdiff_t>(s * shape.hidden);
    std::vector<double> x(first, first + static_cast<std::ptrdiff_t>(shape.hidden));
    const auto normed = norm(x, norm_weights[0]);
    auto queries = product(Product::kQuery, normed);
    auto new_keys = product(Product::kKey, normed);
    const auto new_values = product(Product::kValue, normed);
    rotate(queries, s);
    rotate(new_keys, s);
    const std::size_t size = shape.head_size;
    std::vector<double> attended(queries.size());
    for (std::size_t h = 0; h < shape.heads; ++h) {
      const std::size_t shared = h / (shape.heads / shape.key_heads);
      const auto of = [&](const Matrix& cache, const std::vector<double>& made, std::size_t p,
                          std::size_t k) {
        return p == position ? made[shared * size + k] : double{cache[at(s, shared, p, k)]};
      };
      std::vector<double> weight(position + 1);
      double total = 0;
      for (std::size_t p = 0; p <= position; ++p) {
        double score = 0;
        for (std::size_t k = 0; k < size; ++k) {
          score += queries[h * size + k] * of(keys, new_keys, p, k);
        }
        const double added = masked ? double{mask[s * (position + 1) + p]} : 0.0;
        weight[p] = std::exp(score * shape.scaling + added);
        total += weight[p];
      }
      for (std::size_t p = 0; p <= position; ++p) {
        for (std::size_t k = 0; k < size; ++k) {
          attended[h * size + k] += weight[p] / total * of(cached, new_values, p, k);
        }
      }
    }
    if (sub_norms) attended = norm(attended, norm_weights[2]);
    const auto output = product(Product::kOutput, attended);
    for (std::size_t k = 0; k < x.size(); ++k) x[k] += output[k];
    const auto inner = norm(x, norm_weights[1]);
    auto gates = product(Product::kGate, inner);
    const auto ups = product(Product::kUp, inner);
    for (std::size_t k = 0; k < gates.size(); ++k) {
      const double g = gates[k];
      gates[k] = (shape.gate == GateFunction::kSilu ? g / (1 + std::exp(-g))
                  : g > 0                           ? g * g
                                                    : 0.0) *
                 ups[k];
    }
    if (sub_norms) gates = norm(gates, norm_weights[3]);
    const auto down = product(Product::kDown, gates);
    for (std::size_t k = 0; k < x.size(); ++k) x[k] += down[k];
    return x;
  }

  std::mt19937_64 random;
  BlockShape shape;
  bool sub_norms{false};
  bool masked{false};
  std::size_t sequences{0};
  std::size_t position{0};
  std::size_t capacity{0};
  std::vector<std::size_t> out_sizes;
  std::vector<std::size_t> in_sizes;
  std::vector<Matrix> weights;
  std::vector<Matrix> norm_weights;
  Matrix hidden;
  Matrix angles;  // cosines, then sines
  Matrix keys;
  Matrix cached;
  Matrix mask;
};

void check(std::uint64_t seed, const Executor& executor) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  const Case block(seed);
  Matrix keys = block.keys;
  Matrix values = block.cached;
  const Matrix out = block.run(executor, keys, values);
  for (std::size_t s = 0; s < block.sequences; ++s) {
    const std::vector<double> expected = block.expected(s);
    double largest = 1;
    for (const double value : expected) largest = std::max(largest, std::abs(value));
    for (std::size_t k = 0; k < expected.size(); ++k) {
      // Some hundred roundings of fp32 in a chain, of values up to the largest.
      ASSERT_NEAR(out[s * expected.size() + k], expected[k], 2e-4 * largest);
    }
  }
  // The cache has the new position, and nothing else changed.
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const std::size_t p = i / block.shape.head_size % block.capacity;
    if (p != block.position) {
      ASSERT_EQ(keys[i], block.keys[i]);
      ASSERT_EQ(values[i], block.cached[i]);
    } else {
      ASSERT_NE(values[i], block.cached[i]);
    }
  }
}

TEST(Block, RandomShapes) {
  const ThreadedExecutor threads(3);
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    ASSERT_NO_FATAL_FAILURE(check(seed, SerialExecutor{}));
    ASSERT_NO_FATAL_FAILURE(check(1000 + seed, threads));
  }
}

TEST(Block, NoSequence) {
  Case block(1);
  block.sequences = 0;
  block.hidden.clear();
  EXPECT_TRUE(block.run(SerialExecutor{}, block.keys, block.cached).empty());
}

TEST(Block, AProductThatThrowsIsPassedOn) {
  const Case block(2);
  Matrix out(block.hidden.size());
  const auto fails = [](Product, const linear::LinearArgs&) {
    throw std::runtime_error("no product");
  };
  EXPECT_THROW(run_block(block.shape, block.norms(),
                         {.hidden = block.hidden.data(), .sequences = 1, .out = out.data()}, fails,
                         SerialExecutor{}),
               std::runtime_error);
}

}  // namespace
}  // namespace tfmbs::decode
