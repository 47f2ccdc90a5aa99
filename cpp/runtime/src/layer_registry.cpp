#include "tfmbs/runtime/layer_registry.hpp"

#include <mutex>
#include <utility>

namespace tfmbs::runtime {

LayerRegistry& LayerRegistry::instance() {
  static auto* const registry = new LayerRegistry;  // outlives every op
  return *registry;
}

Result<std::shared_ptr<Layer>> LayerRegistry::add(LayerSpec spec, std::shared_ptr<Fabric> fabric,
                                                  const Layer* replacing,
                                                  const std::string& alias) {
  auto layer = Layer::make(std::move(spec), std::move(fabric), replacing);
  if (!layer) return std::move(layer).error();
  std::shared_ptr<Layer> last;  // destroyed after the lock is released
  std::shared_ptr<Layer> last_alias;
  const std::scoped_lock lock(mutex_);
  last = std::exchange(layers_[layer.value()->spec().to_text()], layer.value());
  if (replacing != nullptr) last_alias = std::exchange(layers_[alias], layer.value());
  return layer;
}

Result<std::shared_ptr<Layer>> LayerRegistry::find_or_make(std::string_view text,
                                                           std::uint64_t outputs,
                                                           std::uint64_t depth) {
  {
    const std::shared_lock lock(mutex_);
    if (const auto found = layers_.find(text); found != layers_.end()) return found->second;
  }
  auto spec = LayerSpec::parse(text);
  if (!spec) return std::move(spec).error();
  if (auto s = check_shape(spec.value(), outputs, depth); !s) return std::move(s).error();
  // Made without the lock, since the device may be busy; of two that race, one is kept.
  auto fabric = Fabric::find_or_open(spec.value().fabric);
  auto layer = Layer::make(std::move(spec).value(), std::move(fabric));
  if (!layer) return std::move(layer).error();
  std::shared_ptr<Layer> made = std::move(layer).value();  // destroyed after the lock is released
  const std::scoped_lock lock(mutex_);
  return layers_.try_emplace(std::string(text), made).first->second;
}

void LayerRegistry::add_alias(const std::string& text, const std::string& alias) {
  std::shared_ptr<Layer> last;  // destroyed after the lock is released
  const std::scoped_lock lock(mutex_);
  if (const auto found = layers_.find(text); found != layers_.end()) {
    const std::shared_ptr<Layer> layer = found->second;
    last = std::exchange(layers_[alias], layer);
  }
}

void LayerRegistry::remove(const std::string& text) noexcept {
  std::shared_ptr<Layer> last;  // destroyed after the lock is released
  const std::scoped_lock lock(mutex_);
  if (const auto found = layers_.find(text); found != layers_.end()) {
    last = std::move(found->second);
    layers_.erase(found);
  }
}

}  // namespace tfmbs::runtime
