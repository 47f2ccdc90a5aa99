// Fork handlers: the locks are held over the fork, so that a child finds every device whole and
// unlocked. Compiled on POSIX systems only.
#include <pthread.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "fabric_registry.hpp"
#include "fork.hpp"
#include "tfmbs/format/large_memory.hpp"
#include "tfmbs/runtime/fabric.hpp"
#include "tfmbs/runtime/layer_registry.hpp"

namespace tfmbs::runtime {
namespace {

// Whose locks the handlers hold, from prepare to parent or child. A layer that has moved is in the
// registry under two texts, and here once.
struct Held {
  std::vector<std::shared_ptr<Layer>> layers;
  std::vector<std::shared_ptr<Fabric>> fabrics;
};

Held& held() {
  static auto* const all = new Held;
  return *all;
}

// Taken over before anything is unlocked, for the next fork fills it; and ended when all is, for a
// layer's end takes locks.
Held take_held() { return std::exchange(held(), {}); }

}  // namespace

void fork_prepare() {
  auto& layers = LayerRegistry::instance();
  layers.mutex_.lock();
  auto& [held_layers, fabrics] = held();
  for (const auto& [text, layer] : layers.layers_) held_layers.push_back(layer);
  std::ranges::sort(held_layers);
  const auto repeated = std::ranges::unique(held_layers);
  held_layers.erase(repeated.begin(), repeated.end());
  for (const auto& layer : held_layers) layer->mutex_.lock();
  fabrics = FabricRegistry::instance().lock_all();
  for (const auto& fabric : fabrics) {
    fabric->queue_->before_fork();
    fabric->mutex_.lock();
  }
  large_memory::before_fork();  // last: whoever holds the others may want memory
}

void fork_parent() {
  const Held all = take_held();
  large_memory::after_fork();
  for (const auto& fabric : all.fabrics) {
    fabric->mutex_.unlock();
    fabric->queue_->after_fork_in_parent();
  }
  FabricRegistry::instance().unlock();
  auto& layers = LayerRegistry::instance();
  for (const auto& layer : all.layers) layer->mutex_.unlock();
  layers.mutex_.unlock();
}

void fork_child() {
  const Held all = take_held();
  large_memory::after_fork();
  for (const auto& fabric : all.fabrics) {
    fabric->mutex_.unlock();
    fabric->queue_->after_fork_in_child();
  }
  FabricRegistry::instance().unlock();
  auto& layers = LayerRegistry::instance();
  for (const auto& layer : all.layers) layer->mutex_.unlock();
  // Not unlocked: threads that waited to read it are counted in it, and do not exist here, so the
  // next writer would wait for them forever.
  std::construct_at(&layers.mutex_);
}

bool handle_forks() { return pthread_atfork(&fork_prepare, &fork_parent, &fork_child) == 0; }

}  // namespace tfmbs::runtime
