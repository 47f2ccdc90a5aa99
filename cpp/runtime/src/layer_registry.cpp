#include "tfmbs/runtime/layer_registry.hpp"

#include <mutex>
#include <utility>

namespace tfmbs::runtime {

LayerRegistry& LayerRegistry::instance() {
  static auto* const registry = new LayerRegistry;  // outlives every op
  return *registry;
}

Result<std::shared_ptr<Layer>> LayerRegistry::add(LayerSpec spec, std::shared_ptr<Fabric> fabric,
                                                  const Layer* replacing) {
  auto layer = Layer::make(std::move(spec), std::move(fabric), replacing);
  if (!layer) return std::move(layer).error();
  std::shared_ptr<Layer> last;  // destroyed after the lock is released
  const std::scoped_lock lock(mutex_);
  last = std::exchange(layers_[layer.value()->spec().to_text()], layer.value());
  return layer;
}

Result<std::shared_ptr<Layer>> LayerRegistry::find_or_make(const std::string& text) {
  {
    const std::shared_lock lock(mutex_);
    if (const auto found = layers_.find(text); found != layers_.end()) return found->second;
  }
  auto spec = LayerSpec::parse(text);
  if (!spec) return std::move(spec).error();
  // Held throughout, so that two first forwards make one layer.
  const std::scoped_lock lock(mutex_);
  if (const auto found = layers_.find(text); found != layers_.end()) return found->second;
  auto fabric = Fabric::find_or_open(spec.value().fabric);
  auto layer = Layer::make(std::move(spec).value(), std::move(fabric));
  if (!layer) return std::move(layer).error();
  layers_.emplace(text, layer.value());
  return layer;
}

void LayerRegistry::rename(const std::string& text, const std::string& other) {
  const std::scoped_lock lock(mutex_);
  if (auto node = layers_.extract(text)) {
    node.key() = other;
    layers_.insert(std::move(node));
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
