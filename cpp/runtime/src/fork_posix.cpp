// Fork handlers: the locks are held over the fork, so that a child finds every layer and device
// whole and unlocked. Compiled on POSIX systems only.
#include <pthread.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "fork.hpp"
#include "tfmbs/device/fork.hpp"
#include "tfmbs/format/large_memory.hpp"
#include "tfmbs/runtime/layer_registry.hpp"

namespace tfmbs::runtime {
namespace {

// Layers whose locks the handlers hold, from prepare to parent or child. A layer that has moved is
// in the registry under two identities, and here once.
std::vector<std::shared_ptr<Layer>>& held() {
  static auto* const layers = new std::vector<std::shared_ptr<Layer>>;
  return *layers;
}

// Taken over before anything is unlocked, for the next fork fills it; and ended when all is, for a
// layer's end takes locks.
std::vector<std::shared_ptr<Layer>> take_held() { return std::exchange(held(), {}); }

}  // namespace

void fork_prepare() {
  auto& registry = LayerRegistry::instance();
  registry.mutex_.lock();
  auto& layers = held();
  for (const auto& [key, layer] : registry.layers_) layers.push_back(layer);
  std::ranges::sort(layers);
  const auto repeated = std::ranges::unique(layers);
  layers.erase(repeated.begin(), repeated.end());
  for (const auto& layer : layers) layer->mutex_.lock();
  device::before_fork();
  large_memory::before_fork();  // last: what holds the other locks may want memory
}

void fork_parent() {
  const auto layers = take_held();
  large_memory::after_fork();
  device::after_fork_in_parent();
  for (const auto& layer : layers) layer->mutex_.unlock();
  LayerRegistry::instance().mutex_.unlock();
}

void fork_child() {
  const auto layers = take_held();
  large_memory::after_fork();
  device::after_fork_in_child();
  for (const auto& layer : layers) layer->mutex_.unlock();
  // Not unlocked: threads that waited to read it are counted in it, and do not exist here, so the
  // next writer would wait for them forever.
  std::construct_at(&LayerRegistry::instance().mutex_);
}

bool handle_forks() { return pthread_atfork(&fork_prepare, &fork_parent, &fork_child) == 0; }

}  // namespace tfmbs::runtime
