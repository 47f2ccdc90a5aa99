// The living layers of the process, by the text of their specification: how a torch op, which can
// carry text but no handle, finds its layer.
#pragma once

#include <memory>
#include <shared_mutex>
#include <string>
#include <unordered_map>

#include "tfmbs/format/error.hpp"
#include "tfmbs/runtime/layer.hpp"

namespace tfmbs::runtime {

class LayerRegistry {
 public:
  static LayerRegistry& instance();

  // A layer of a specification on a living device; it is found from now on by spec().to_text().
  // Errors: as Fabric::enter. `replacing`: as Layer::make; its text is the caller's to remove.
  Result<std::shared_ptr<Layer>> add(LayerSpec spec, std::shared_ptr<Fabric> fabric,
                                     const Layer* replacing = nullptr);
  // The living layer of that text; where there is none (a program exported by another process), it
  // and its device are made and live on. Errors: kInvalidArgument (malformed), and as add.
  Result<std::shared_ptr<Layer>> find_or_make(const std::string& text);
  // Another text for the layer of `text`: the same layer, found by `other` from now on.
  void rename(const std::string& text, const std::string& other);
  // Lets a layer go; it ends when the last forward in flight has.
  void remove(const std::string& text) noexcept;

 private:
  friend void fork_prepare();
  friend void fork_parent();
  friend void fork_child();

  std::shared_mutex mutex_;
  std::unordered_map<std::string, std::shared_ptr<Layer>> layers_;
};

}  // namespace tfmbs::runtime
