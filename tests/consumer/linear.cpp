// y = x W^T with ternary weights, from the linear layer alone: no device, no torch.
#include <cstdint>
#include <cstdio>
#include <tfmbs/linear/linear.hpp>
#include <tfmbs/linear/packing_policy.hpp>
#include <tfmbs/linear/quantized_weights.hpp>
#include <vector>

namespace {

using tfmbs::linear::Activation;

constexpr std::size_t kRows = 3;
constexpr std::size_t kInputs = 200;
constexpr std::size_t kOutputs = 70;

// What an activation mode makes of an input, times its scale. A row's greatest value is 127, so
// int8 keeps every value as it is.
int quantized(Activation activation, float x) {
  if (activation == Activation::kInt8) return static_cast<int>(x);
  return (x > 0 ? 1 : 0) - (x < 0 ? 1 : 0);
}

bool right(Activation activation) {
  std::vector<std::int8_t> trits(kOutputs * kInputs);
  for (std::size_t i = 0; i < trits.size(); ++i) {
    trits[i] = static_cast<std::int8_t>(static_cast<int>(i * i / 7 % 3) - 1);
  }
  std::vector<float> x(kRows * kInputs);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = i % kInputs == 0 ? 127.0F : static_cast<float>(static_cast<int>(i * 37 % 255) - 127);
  }
  std::vector<float> y(kRows * kOutputs);

  const double scale = 0.5;
  const auto weights = tfmbs::linear::read_trits({.trits = trits.data(),
                                                  .outputs = kOutputs,
                                                  .depth = kInputs,
                                                  .scales = &scale,
                                                  .scale_count = 1});
  if (!weights) return false;
  const tfmbs::execution::SerialExecutor executor;  // or one over threads of your own
  const tfmbs::linear::PackedWeights packed(weights.value(),
                                            tfmbs::linear::preferred_layout(activation), executor);
  tfmbs::linear::linear(packed, activation,
                        {.input = x.data(), .samples = kRows, .output = y.data()}, executor);

  for (std::size_t m = 0; m < kRows; ++m) {
    for (std::size_t n = 0; n < kOutputs; ++n) {
      int sum = 0;
      for (std::size_t k = 0; k < kInputs; ++k) {
        sum += quantized(activation, x[m * kInputs + k]) * trits[n * kInputs + k];
      }
      if (y[m * kOutputs + n] != static_cast<float>(sum) * static_cast<float>(scale)) return false;
    }
  }
  return true;
}

}  // namespace

int main() {
  const bool all = right(Activation::kTernary) && right(Activation::kInt8);
  std::printf("linear: %s\n", all ? "right" : "wrong");
  return all ? 0 : 1;
}
