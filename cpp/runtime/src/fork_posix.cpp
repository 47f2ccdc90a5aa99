// Fork handlers: the locks are held over the fork, so that a child finds every device whole and
// unlocked. Compiled on POSIX systems only.
#include <pthread.h>

#include <memory>
#include <vector>

#include "fabric_registry.hpp"
#include "fork.hpp"
#include "tfmbs/format/large_memory.hpp"
#include "tfmbs/runtime/fabric.hpp"
#include "tfmbs/runtime/layer_registry.hpp"

namespace tfmbs::runtime {
namespace {

// The devices whose locks the handlers hold, from prepare to parent or child.
std::vector<std::shared_ptr<Fabric>>& held() {
  static auto* const fabrics = new std::vector<std::shared_ptr<Fabric>>;
  return *fabrics;
}

}  // namespace

void fork_prepare() {
  auto& layers = LayerRegistry::instance();
  layers.mutex_.lock();
  for (const auto& [text, layer] : layers.layers_) layer->mutex_.lock();
  held() = FabricRegistry::instance().lock_all();
  for (const auto& fabric : held()) {
    fabric->queue_->before_fork();
    fabric->mutex_.lock();
  }
  large_memory::before_fork();  // last: whoever holds the others may want memory
}

void fork_parent() {
  large_memory::after_fork();
  for (const auto& fabric : held()) {
    fabric->mutex_.unlock();
    fabric->queue_->after_fork_in_parent();
  }
  FabricRegistry::instance().unlock();
  auto& layers = LayerRegistry::instance();
  for (const auto& [text, layer] : layers.layers_) layer->mutex_.unlock();
  layers.mutex_.unlock();
  held().clear();
}

void fork_child() {
  large_memory::after_fork();
  for (const auto& fabric : held()) {
    fabric->mutex_.unlock();
    fabric->queue_->after_fork_in_child();
  }
  FabricRegistry::instance().unlock();
  auto& layers = LayerRegistry::instance();
  for (const auto& [text, layer] : layers.layers_) layer->mutex_.unlock();
  // Not unlocked: threads that waited to read it are counted in it, and do not exist here, so the
  // next writer would wait for them forever.
  std::construct_at(&layers.mutex_);
  held().clear();
}

bool handle_forks() { return pthread_atfork(&fork_prepare, &fork_parent, &fork_child) == 0; }

}  // namespace tfmbs::runtime
