// A layer: a watcher of its weights, their packed copy, and an account on a device, if it has one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "tfmbs/device/account.hpp"
#include "tfmbs/device/lane_statistics.hpp"
#include "tfmbs/execution/executor.hpp"
#include "tfmbs/format/error.hpp"
#include "tfmbs/linear/linear_args.hpp"
#include "tfmbs/linear/packing_policy.hpp"
#include "tfmbs/linear/quantized_weights.hpp"
#include "tfmbs/runtime/layer_spec.hpp"
#include "tfmbs/runtime/layer_weights.hpp"
#include "tfmbs/runtime/packed_source.hpp"
#include "tfmbs/runtime/weight_source.hpp"
#include "tfmbs/runtime/weight_watcher.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::runtime {

// Errors: kInvalidArgument where weights of outputs x depth are not of the specification's shape.
Status check_shape(const LayerSpec& spec, std::uint64_t outputs, std::uint64_t depth);

// Safe to use from several threads.
class Layer {
 public:
  // Opens an account on the device; spec().identity.name is what the device agreed to. A layer
  // without a device (`fabric` is null) keeps its name. Errors: as device::Fabric::enter.
  // `replacing`: a layer of the same device that leaves if this one enters; it must not be used
  // afterwards but to destroy it.
  static Result<std::shared_ptr<Layer>> make(LayerSpec spec, std::shared_ptr<device::Fabric> fabric,
                                             const Layer* replacing = nullptr);
  // The same for weights that never change: they are packed once, and the device knows their
  // sparsity from the start. spec.quantizer is taken as kCustom. Errors: also kInvalidArgument for
  // weights of another shape than the specification's.
  static Result<std::shared_ptr<Layer>> make_constant(LayerSpec spec,
                                                      std::shared_ptr<device::Fabric> fabric,
                                                      const linear::QuantizedWeights& weights);
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  [[nodiscard]] const LayerSpec& spec() const noexcept { return spec_; }
  // Null where the layer has no device.
  [[nodiscard]] const std::shared_ptr<device::Fabric>& fabric() const noexcept { return fabric_; }

  // Errors: kInvalidArgument (a shape other than the specification's), kPlacement, kGone, kClosed,
  // kMismatch. Throws std::bad_alloc. After either the output is unspecified, and the device as
  // before.
  Status forward(const WeightSource& weights, const linear::LinearArgs& args,
                 const execution::Executor& executor);
  // quantized: the float weights that the trits were made of, so that forward_packed() knows them.
  Status forward(const linear::TritSource& weights, const linear::LinearArgs& args,
                 const execution::Executor& executor, const WeightSource* quantized = nullptr);
  // Of weights that are packed already. Errors: also check_packed's.
  Status forward(const PackedSource& weights, const linear::LinearArgs& args,
                 const execution::Executor& executor);
  // Of a layer with constant weights, which the two above and refresh() do not change. Errors: also
  // kInvalidArgument where the layer has none.
  Status forward(const linear::LinearArgs& args, const execution::Executor& executor);

  // The exact sums, samples x outputs, of rows of int8 that the caller quantized, -127...127: of a
  // part of a layer that is split over processes. No scales, no device. Errors: kInvalidArgument
  // (the shape; a layer with group scales or another activation); check_packed's.
  Status sums(const PackedSource& weights, const std::int8_t* values, std::size_t samples,
              std::int32_t* out, const execution::Executor& executor);

  // A forward pass of weights that are packed and have not changed since. False, with nothing done,
  // where they have, where the layer holds no storage of theirs (see StorageOwner), or where
  // forward() would give an error. The weights' memory may have been freed or shrunk: only what the
  // held storage still has is read.
  bool forward_packed(const WeightSource& weights, const linear::LinearArgs& args,
                      const execution::Executor& executor);

  // Packs what has changed, or is packed otherwise than linear::preferred_layout says now. Errors:
  // as forward.
  Status prepare(const WeightSource& weights, const execution::Executor& executor);
  Status prepare(const linear::TritSource& weights, const execution::Executor& executor);

  // Loads the weights into Bank A; false where they stream, or the layer has no device.
  Result<bool> prefetch(const WeightSource& weights, const execution::Executor& executor);
  Result<bool> prefetch(const linear::TritSource& weights, const execution::Executor& executor);
  Result<bool> prefetch(const PackedSource& weights, const execution::Executor& executor);
  // Errors: kPlacement where the layer can never be resident, or has no device.
  Status set_pinned(bool pinned);
  // Forgets what was packed: the next forward pass quantizes anew.
  void refresh();
  void note_sparsity(double sparsity);
  // Of a layer without a device: its name, mask and sparsity.
  [[nodiscard]] device::LayerProfile profile() const;
  // Counts the layer's weights among those that choose the packing, before it is packed.
  void expect_weights();
  // Whether the layer holds a reference to the storage of the float weights at that address.
  [[nodiscard]] bool holds_storage(const void* weights) const;
  // Bytes that the packed weights take in host memory; 0 before the first forward pass.
  [[nodiscard]] std::size_t packed_bytes() const;
  // Their layout; none before the first forward pass.
  [[nodiscard]] std::optional<WeightLayout> packed_layout() const;

 private:
  // The weights of one forward pass.
  struct Snapshot {
    std::shared_ptr<const LayerWeights> weights;
    std::shared_ptr<const device::LaneStatistics> statistics;
  };
  // What a change of weights left: it must not end under the lock (WeightWatcher::note).
  struct Discarded {
    Snapshot packed;
    std::shared_ptr<const RetainedStorage> owner;
    std::shared_ptr<const RetainedStorage> scales_owner;
  };

  friend void fork_prepare();
  friend void fork_parent();
  friend void fork_child();

  explicit Layer(LayerSpec spec) : spec_(std::move(spec)) {}
  Result<Snapshot> snapshot(const WeightSource& source, const execution::Executor& executor);
  Result<Snapshot> snapshot(const linear::TritSource& source, const execution::Executor& executor,
                            const WeightSource* quantized = nullptr);
  Result<Snapshot> snapshot(const PackedSource& source, const execution::Executor& executor);
  [[nodiscard]] std::optional<Snapshot> packed_snapshot(const WeightSource& source) const;
  // Of what is packed, with statistics where they are wanted.
  Snapshot take_snapshot();
  [[nodiscard]] bool lacks_statistics() const noexcept;
  [[nodiscard]] bool shares_trits(const LayerWeights& made) const;
  [[nodiscard]] std::shared_ptr<const LayerWeights> packed_weights() const;
  // Gives what was packed before.
  [[nodiscard]] Snapshot adopt(const linear::QuantizedWeights& weights,
                               const execution::Executor& executor);
  [[nodiscard]] Snapshot adopt(std::shared_ptr<LayerWeights> made,
                               std::shared_ptr<const device::LaneStatistics> statistics);
  template <typename Source>
  Status prepare_from(const Source& weights, const execution::Executor& executor);
  template <typename Source>
  Result<bool> prefetch_from(const Source& weights, const execution::Executor& executor);
  Status run(const Snapshot& snapshot, const linear::LinearArgs& args,
             const execution::Executor& executor);

  LayerSpec spec_;
  std::shared_ptr<device::Fabric> fabric_;
  std::unique_ptr<device::Account> account_;  // none without a device
  mutable std::mutex mutex_;
  Snapshot packed_;
  WeightWatcher watcher_;
  WeightWatcher scales_watcher_;        // of a packed layer's scales
  std::optional<std::uint64_t> trits_;  // fingerprint of a TritSource's that is packed
  linear::WeightShare share_;           // of what is packed, or expected
  std::optional<double> sparsity_;      // of a layer without a device
  Snapshot constant_;  // of a layer with constant weights; set before the layer is shared
};

}  // namespace tfmbs::runtime

#pragma GCC visibility pop
