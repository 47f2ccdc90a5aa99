#include "forwards.hpp"

#include <array>
#include <chrono>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "tfmbs/runtime/layer.hpp"
#include "torch_executor.hpp"

using tfmbs::device::Fabric;
using tfmbs::kernels::FloatType;
using tfmbs::runtime::Layer;

struct tfmbs_bench_layer {
  std::shared_ptr<Layer> layer;
  tfmbs::runtime::WeightSource weights;

  void forward(const float* input, std::size_t rows, float* output) const {
    const auto status = layer->forward(weights,
                                       {.input = input,
                                        .input_type = FloatType::kFloat32,
                                        .samples = rows,
                                        .output = output,
                                        .output_type = FloatType::kFloat32},
                                       tfmbs::TorchExecutor{});
    if (!status) throw std::runtime_error(status.error().message);
  }
};

namespace {

// Cut where it is longer: to keep it must not fail.
std::array<char, 512>& last_error() {
  thread_local std::array<char, 512> message{};
  return message;
}

template <typename T>
T require(tfmbs::Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(result).value();
}

template <typename Result, typename Call>
Result guarded(Result failed, const Call& call) noexcept {
  try {
    return call();
  } catch (const std::exception& error) {
    std::snprintf(last_error().data(), last_error().size(), "%s", error.what());
    return failed;
  }
}

// All layers are on one device.
const std::shared_ptr<Fabric>& uncounted_fabric() {
  static const std::shared_ptr<Fabric> fabric = [] {
    auto made = Fabric::open(tfmbs::device::Engine::kClosedForm, {});
    made->set_telemetry(false);
    return made;
  }();
  return fabric;
}

}  // namespace

tfmbs_bench_layer* tfmbs_bench_layer_make(const float* weights, std::uint64_t outputs,
                                          std::uint64_t depth, const char* activation) noexcept {
  return guarded<tfmbs_bench_layer*>(nullptr, [&] {
    tfmbs::runtime::LayerSpec spec{
        .identity = {.name = "layer"},
        .outputs = outputs,
        .depth = depth,
        .activation = require(tfmbs::linear::parse_activation(activation))};
    auto made = std::make_unique<tfmbs_bench_layer>();
    made->layer = require(Layer::make(std::move(spec), uncounted_fabric()));
    made->weights = {.data = weights, .outputs = outputs, .depth = depth};
    const std::vector<float> input(depth);
    std::vector<float> output(outputs);
    made->forward(input.data(), 1, output.data());  // packs
    return made.release();
  });
}

void tfmbs_bench_layer_free(tfmbs_bench_layer* layer) noexcept {
  const std::unique_ptr<tfmbs_bench_layer> owned(layer);
}

const char* tfmbs_bench_error() noexcept { return last_error().data(); }

std::uint64_t tfmbs_bench_layer_weight_bytes(const tfmbs_bench_layer* layer) noexcept {
  return layer->layer->packed_bytes();
}

const char* tfmbs_bench_layer_layout(const tfmbs_bench_layer* layer) noexcept {
  const auto layout = layer->layer->packed_layout();
  return layout ? tfmbs::name_of(*layout) : "";
}

double tfmbs_bench_forwards(tfmbs_bench_layer* const* layers, std::size_t count, std::size_t first,
                            const float* input, std::size_t rows, float* output,
                            std::size_t calls) noexcept {
  return guarded(-1.0, [&] {
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < calls; ++i) {
      layers[(first + i) % count]->forward(input, rows, output);
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  });
}
