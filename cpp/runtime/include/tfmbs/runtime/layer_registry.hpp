// The living layers of the process, by what an op carries of them: how a torch op, which holds no
// handle, finds its layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "tfmbs/format/error.hpp"
#include "tfmbs/runtime/layer.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::runtime {

// An identity's text (LayerIdentity::to_text) and what changes the layer's numbers.
struct LayerKey {
  std::string_view identity;
  linear::WeightQuantizer quantizer{linear::WeightQuantizer::kSign};
  linear::Activation activation{linear::Activation::kTernary};
  std::uint32_t group{0};  // of a packed layer's scales
};

class LayerRegistry {
 public:
  static LayerRegistry& instance();

  // A layer is found by this identity from now on, until remove(). An identity that found another
  // layer before finds this one.
  void add(std::string_view identity, const std::shared_ptr<Layer>& layer);
  // The living layer of that key, or null.
  [[nodiscard]] std::shared_ptr<Layer> find(const LayerKey& key);
  // The living layer of that key; where there is none (a program exported by another process), it
  // and its device are made and live on. Errors: kInvalidArgument (malformed; weights of another
  // shape than the layer's), and as Layer::make.
  Result<std::shared_ptr<Layer>> find_or_make(const LayerKey& key, std::uint64_t outputs,
                                              std::uint64_t depth);
  // Lets an identity go, if it is this layer's: another layer may have taken it over.
  void remove(std::string_view identity, const Layer& layer) noexcept;

 private:
  friend void fork_prepare();
  friend void fork_parent();
  friend void fork_child();

  struct Key {
    explicit Key(const LayerKey& key)
        : identity(key.identity),
          quantizer(key.quantizer),
          activation(key.activation),
          group(key.group) {}
    operator LayerKey() const noexcept {  // NOLINT(google-explicit-constructor): a view
      return {identity, quantizer, activation, group};
    }
    std::string identity;
    linear::WeightQuantizer quantizer;
    linear::Activation activation;
    std::uint32_t group;
  };
  // So that a view finds its key.
  struct Hash {
    using is_transparent = void;
    [[nodiscard]] std::size_t operator()(const LayerKey& key) const noexcept {
      return std::hash<std::string_view>{}(key.identity) +
             31 * static_cast<std::size_t>(key.quantizer) +
             37 * static_cast<std::size_t>(key.activation);
    }
  };
  struct Equal {
    using is_transparent = void;
    [[nodiscard]] bool operator()(const LayerKey& a, const LayerKey& b) const noexcept {
      return a.identity == b.identity && a.quantizer == b.quantizer &&
             a.activation == b.activation && a.group == b.group;
    }
  };

  std::shared_mutex mutex_;
  std::unordered_map<Key, std::shared_ptr<Layer>, Hash, Equal> layers_;
};

}  // namespace tfmbs::runtime

#pragma GCC visibility pop
