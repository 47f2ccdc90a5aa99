// The living layers of the process, by the text of their specification: how a torch op, which can
// carry text but no handle, finds its layer.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "tfmbs/format/error.hpp"
#include "tfmbs/runtime/layer.hpp"

namespace tfmbs::runtime {

class LayerRegistry {
 public:
  static LayerRegistry& instance();

  // A layer of a specification on a living device; it is found from now on by spec().to_text().
  // Errors: as Fabric::enter. `replacing`: as Layer::make; `alias`, its text, finds
  // the new layer from now on, for a forward that has read it already.
  Result<std::shared_ptr<Layer>> add(LayerSpec spec, std::shared_ptr<Fabric> fabric,
                                     const Layer* replacing = nullptr,
                                     const std::string& alias = {});
  // The living layer of that text; where there is none (a program exported by another process), it
  // and its device are made and live on. Errors: kInvalidArgument (malformed), and as add.
  // Nothing is made for weights of another shape than the text's.
  Result<std::shared_ptr<Layer>> find_or_make(std::string_view text, std::uint64_t outputs,
                                              std::uint64_t depth);
  // The layer of `text` is found by `alias` too.
  void add_alias(const std::string& text, const std::string& alias);
  // Lets a text go, and with its last text the layer; it ends when the last forward in flight has.
  void remove(const std::string& text) noexcept;

 private:
  friend void fork_prepare();
  friend void fork_parent();
  friend void fork_child();

  // So that a view finds its text.
  struct TextHash {
    using is_transparent = void;
    [[nodiscard]] std::size_t operator()(std::string_view text) const noexcept {
      return std::hash<std::string_view>{}(text);
    }
  };

  std::shared_mutex mutex_;
  std::unordered_map<std::string, std::shared_ptr<Layer>, TextHash, std::equal_to<>> layers_;
};

}  // namespace tfmbs::runtime
