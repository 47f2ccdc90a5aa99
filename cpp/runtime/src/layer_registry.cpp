#include "tfmbs/runtime/layer_registry.hpp"

#include <mutex>
#include <utility>

namespace tfmbs::runtime {
namespace {

LayerKey key_of(std::string_view identity, const Layer& layer) noexcept {
  return {identity, layer.spec().quantizer, layer.spec().activation, layer.spec().group};
}

}  // namespace

LayerRegistry& LayerRegistry::instance() {
  static auto* const registry = new LayerRegistry;  // outlives every op
  return *registry;
}

void LayerRegistry::add(std::string_view identity, const std::shared_ptr<Layer>& layer) {
  std::shared_ptr<Layer> last;  // destroyed after the lock is released
  Key key(key_of(identity, *layer));
  const std::scoped_lock lock(mutex_);
  last = std::exchange(layers_[std::move(key)], layer);
}

std::shared_ptr<Layer> LayerRegistry::find(const LayerKey& key) {
  const std::shared_lock lock(mutex_);
  const auto found = layers_.find(key);
  return found == layers_.end() ? nullptr : found->second;
}

Result<std::shared_ptr<Layer>> LayerRegistry::find_or_make(const LayerKey& key,
                                                           std::uint64_t outputs,
                                                           std::uint64_t depth) {
  {
    const std::shared_lock lock(mutex_);
    if (const auto found = layers_.find(key); found != layers_.end()) {
      if (auto s = check_shape(found->second->spec(), outputs, depth); !s) {
        return std::move(s).error();
      }
      return found->second;
    }
  }
  auto identity = LayerIdentity::parse(key.identity);
  if (!identity) return std::move(identity).error();
  LayerSpec spec{.identity = std::move(identity).value(),
                 .outputs = outputs,
                 .depth = depth,
                 .quantizer = key.quantizer,
                 .activation = key.activation,
                 .group = key.group};
  if (auto s = check_limits(spec); !s) return std::move(s).error();
  // Made without the lock, since the device may be busy; of two that race, one is kept.
  auto fabric =
      spec.identity.fabric ? device::Fabric::find_or_open(*spec.identity.fabric) : nullptr;
  auto layer = Layer::make(std::move(spec), std::move(fabric));
  if (!layer) return std::move(layer).error();
  std::shared_ptr<Layer> made = std::move(layer).value();  // destroyed after the lock is released
  const std::scoped_lock lock(mutex_);
  return layers_.try_emplace(Key(key), made).first->second;
}

void LayerRegistry::remove(std::string_view identity, const Layer& layer) noexcept {
  std::shared_ptr<Layer> last;  // destroyed after the lock is released
  const std::scoped_lock lock(mutex_);
  const auto found = layers_.find(key_of(identity, layer));
  if (found == layers_.end() || found->second.get() != &layer) return;
  last = std::move(found->second);
  layers_.erase(found);
}

}  // namespace tfmbs::runtime
