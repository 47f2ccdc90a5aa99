// A ternary linear layer: quantize, multiply, scale and bias, and the device's account of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "tfmbs/format/error.hpp"
#include "tfmbs/kernels/kernels.hpp"
#include "tfmbs/runtime/executor.hpp"
#include "tfmbs/runtime/fabric.hpp"
#include "tfmbs/runtime/lane_statistics.hpp"
#include "tfmbs/runtime/layer_spec.hpp"
#include "tfmbs/runtime/packed_weights.hpp"
#include "tfmbs/runtime/weight_source.hpp"
#include "tfmbs/runtime/weight_storage.hpp"

namespace tfmbs::runtime {

// Row-major, contiguous: samples x depth in, samples x outputs out. The arithmetic after the exact
// product is fp64 where the input is fp64, else fp32 (kernels::EpilogueArgs has the formula).
struct LinearArgs {
  const void* input{nullptr};
  kernels::FloatType input_type{kernels::FloatType::kFloat32};
  std::size_t samples{0};
  const void* bias{nullptr};  // or null
  kernels::FloatType bias_type{kernels::FloatType::kFloat32};
  void* output{nullptr};
  kernels::FloatType output_type{kernels::FloatType::kFloat32};
  bool relu{false};  // in the same pass over the output
};

// Errors: kInvalidArgument where weights of outputs x depth are not of the specification's shape.
Status check_shape(const LayerSpec& spec, std::uint64_t outputs, std::uint64_t depth);

// The handle by which `refresh`, residency and telemetry of a layer are reached. Safe to use from
// several threads.
class Layer {
 public:
  // Enters the layer into its device; spec().name is what the device agreed to. Errors: as
  // Fabric::enter. `replacing`: a layer of the same device that leaves it if this one enters; it
  // must not be used afterwards but to destroy it.
  static Result<std::shared_ptr<Layer>> make(LayerSpec spec, std::shared_ptr<Fabric> fabric,
                                             const Layer* replacing = nullptr);
  // The same for weights that never change: they are packed once, in the layout that is preferred
  // then, and compared with nothing, and the device knows their sparsity from the start.
  // spec.quantizer is taken as kCustom. Errors: also kInvalidArgument for weights of another shape
  // than the specification's.
  static Result<std::shared_ptr<Layer>> make_constant(LayerSpec spec,
                                                      std::shared_ptr<Fabric> fabric,
                                                      const QuantizedWeights& weights);
  ~Layer();
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  [[nodiscard]] const LayerSpec& spec() const noexcept { return spec_; }
  [[nodiscard]] const std::shared_ptr<Fabric>& fabric() const noexcept { return fabric_; }

  // Errors: kInvalidArgument (a shape other than the specification's), kPlacement, kClosed; the
  // output is then unspecified, and the device as before.
  Status forward(const WeightSource& weights, const LinearArgs& args, const Executor& executor);
  Status forward(const TritSource& weights, const LinearArgs& args, const Executor& executor);
  // Of a layer with constant weights, which the two above and refresh() do not change. Errors: also
  // kInvalidArgument where the layer has none.
  Status forward(const LinearArgs& args, const Executor& executor);

  // A forward of weights that are packed and have not changed since. False, with nothing done,
  // where they have, where the layer holds no storage of theirs (see StorageOwner), or where
  // forward() would give an error. The weights' memory may have been freed or shrunk: only what the
  // held storage still has is read.
  bool forward_packed(const WeightSource& weights, const LinearArgs& args,
                      const Executor& executor);

  Result<bool> prefetch(const WeightSource& weights, const Executor& executor);
  Result<bool> prefetch(const TritSource& weights, const Executor& executor);
  Status set_pinned(bool pinned) { return fabric_->set_pinned(*id_, pinned); }
  // Forgets what was packed: the next forward quantizes anew.
  void refresh();
  void note_sparsity(double sparsity) { fabric_->note_sparsity(*id_, sparsity); }
  [[nodiscard]] LayerProfile profile() const { return fabric_->layer_profile(*id_); }
  // Bytes that the packed weights take in host memory; 0 before the first forward.
  [[nodiscard]] std::size_t packed_bytes() const;
  // Their layout; none before the first forward.
  [[nodiscard]] std::optional<WeightLayout> packed_layout() const;

 private:
  // What was packed, from which weights.
  struct Packed {
    std::shared_ptr<const PackedWeights> weights;
    std::shared_ptr<const LaneStatistics> statistics;
    const void* data{nullptr};
    kernels::FloatType type{kernels::FloatType::kFloat32};
    std::optional<std::int64_t> version{};
    std::optional<std::uint64_t> fingerprint{};
    // Its end may wait for a language's own lock (the Python interpreter's, for torch storage that
    // Python has seen), whose holder may wait for this layer's: so it is never ended under it.
    std::shared_ptr<const RetainedStorage> owner{};
    bool seen_by_content{false};  // the last comparison was one of contents
    std::uint64_t sample{0};      // of the source's values (layer.cpp)

    // Whether the source is of the same memory, all of which `owner` still holds, and nobody has
    // written to it as far as it counts. Reads nothing of it before that is sure. Where contents
    // are compared anyway, the sample is not looked at: the first comparison after that is one of
    // contents too (seen_by_content).
    [[nodiscard]] bool is_of(const WeightSource& source) const noexcept;
  };
  // The weights of one forward.
  struct Snapshot {
    std::shared_ptr<const PackedWeights> weights;
    std::shared_ptr<const LaneStatistics> statistics;
  };

  friend void fork_prepare();
  friend void fork_parent();
  friend void fork_child();

  Layer(LayerSpec spec, std::shared_ptr<Fabric> fabric);
  Result<Snapshot> snapshot(const WeightSource& source, const Executor& executor);
  Result<Snapshot> snapshot(const TritSource& source, const Executor& executor);
  [[nodiscard]] std::optional<Snapshot> packed_snapshot(const WeightSource& source) const;
  // Of what is packed, in the layout that is preferred now.
  Snapshot take_snapshot(const Executor& executor);
  [[nodiscard]] std::shared_ptr<const PackedWeights> packed_weights() const;
  [[nodiscard]] std::shared_ptr<const LaneStatistics> statistics_of(BitPlaneView weights) const;
  [[nodiscard]] std::shared_ptr<const LaneStatistics> statistics_of(
      const PackedWeights& weights) const;
  // Gives what was packed before; whoever destroys it must not hold the lock (see Packed::owner).
  [[nodiscard]] Packed adopt(const QuantizedWeights& weights, const Executor& executor);
  Status run(const Snapshot& snapshot, const LinearArgs& args, const Executor& executor);

  LayerSpec spec_;
  std::shared_ptr<Fabric> fabric_;
  std::optional<placement::LayerId> id_;  // none until it has entered
  std::uint32_t tile_slots_{1};
  mutable std::mutex mutex_;
  Packed packed_;
  WeightShare share_;  // of what is packed
  Snapshot constant_;  // of a layer with constant weights; set before anybody sees the layer
};

}  // namespace tfmbs::runtime
