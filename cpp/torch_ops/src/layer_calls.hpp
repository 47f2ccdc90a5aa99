// What every op of a layer does: fills views for the call builder, and finds its layer.
#pragma once

#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include "errors.hpp"
#include "tensors.hpp"
#include "tfmbs/runtime/call.hpp"
#include "tfmbs/runtime/layer_registry.hpp"

namespace tfmbs::torch_ops {

// The operands of one op call, and its output.
struct Operands {
  Tensor input;  // contiguous
  std::optional<Tensor> bias;
  Tensor output;
  linear::LinearArgs args;

  struct Options {
    bool relu{false};
    bool wide_bias{false};
  };
};

// Of `weight` its sizes and type alone are looked at. Throws what nn.Linear refuses.
[[nodiscard]] Operands prepare_operands(const Tensor& input, const runtime::TensorView& weight,
                                        const std::optional<Tensor>& bias,
                                        std::optional<ScalarType> out_dtype,
                                        Operands::Options options);

// A trainable layer's key.
[[nodiscard]] runtime::LayerKey key_of(const Tensor& identity, const Text& quantizer,
                                       const Text& activation);
// Of a layer whose trits come from outside the library.
[[nodiscard]] runtime::LayerKey trit_key(const Tensor& identity, std::string_view activation,
                                         std::int64_t group_size = 0);

// Calls something of a layer. Where another thread moves the layer meanwhile, its identity finds
// the layer that took its place; what the handle is doing then takes microseconds.
template <typename Call>
auto on_layer(const runtime::LayerKey& key, std::int64_t outputs, std::int64_t depth,
              const Call& call) {
  constexpr int kAttempts = 1000;
  for (int attempt = 1;; ++attempt) {
    const auto layer = require(runtime::LayerRegistry::instance().find_or_make(
        key, static_cast<std::uint64_t>(outputs), static_cast<std::uint64_t>(depth)));
    // NOLINTNEXTLINE(misc-const-correctness): a Result is moved from
    auto outcome = call(*layer);
    const bool moved = !outcome && outcome.error().code == ErrorCode::kGone;
    if (!moved || attempt == kAttempts) return require(std::move(outcome));
    std::this_thread::yield();
  }
}

}  // namespace tfmbs::torch_ops
