#include "tfmbs/runtime/layer.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <span>
#include <utility>
#include <vector>

#include "aligned_buffer.hpp"
#include "tfmbs/kernels/fingerprint.hpp"

namespace tfmbs::runtime {
namespace {

using kernels::FloatType;

// Rows and outputs of one product block: its sums (64 x 256 x 4 bytes) stay in the L2 cache beside
// the weights (256 rows of up to 4,096 trits are 256 KiB).
constexpr std::size_t kBlockRows = 64;
constexpr std::size_t kBlockOutputs = 256;
// Multiplications below which another thread costs more than it brings.
constexpr std::size_t kGrainProducts = std::size_t{1} << 21;

// Memory that one thread keeps between forwards.
struct Scratch {
  AlignedBuffer<std::uint64_t> planes;
  std::vector<double> scales;
  std::vector<std::uint8_t> nan_rows;
};

Scratch& scratch() {
  thread_local Scratch memory;
  return memory;
}

// Names one state of some layer's trits, process-wide.
std::uint64_t next_serial() {
  static std::atomic<std::uint64_t> serial{0};
  return ++serial;
}

bool equal(BitPlaneView a, BitPlaneView b) {
  return a.rows == b.rows && a.trits == b.trits &&
         std::equal(a.words, a.words + a.rows * a.row_words(), b.words);
}

std::uint64_t source_bytes(const WeightSource& source) {
  return source.outputs * source.depth * kernels::float_bytes(source.type);
}

struct QuantizedInput {
  ActivationPlanes planes;
  const double* scales;  // one a sample, or null for 1
  const std::uint8_t* nan_rows;
};

QuantizedInput quantize_input(const LinearArgs& args, std::size_t depth, Activation activation,
                              const Executor& executor) {
  Scratch& memory = scratch();
  const bool int8 = activation == Activation::kInt8;
  const std::size_t planes = int8 ? kernels::kInt8Planes : 1;
  const std::size_t row_words = bit_plane_blocks(depth) * kBlockWords;
  std::uint64_t* words = memory.planes.reserve(planes * args.samples * row_words);
  memory.nan_rows.resize(args.samples);
  if (int8) memory.scales.resize(args.samples);
  const auto* input = static_cast<const std::byte*>(args.input);
  const std::size_t row_bytes = depth * kernels::float_bytes(args.input_type);
  const auto& kernel = kernels::active();
  if (!int8) {
    executor.parallel_for(args.samples, 1 + (std::size_t{1} << 17) / depth,
                          [&](std::size_t begin, std::size_t end) {
                            kernel.ternarize({.input = input + begin * row_bytes,
                                              .type = args.input_type,
                                              .rows = end - begin,
                                              .columns = depth,
                                              .row_stride = depth,
                                              .thresholds = nullptr,
                                              .planes = words + begin * row_words,
                                              .nan_rows = memory.nan_rows.data() + begin});
                          });
  } else {
    // Planes lie a whole matrix apart, so each range writes a stretch of every one.
    executor.parallel_for(args.samples, 1 + (std::size_t{1} << 15) / depth,
                          [&](std::size_t begin, std::size_t end) {
                            kernel.quantize_int8({.input = input + begin * row_bytes,
                                                  .type = args.input_type,
                                                  .rows = end - begin,
                                                  .columns = depth,
                                                  .row_stride = depth,
                                                  .planes = words + begin * row_words,
                                                  .plane_stride = args.samples * row_words,
                                                  .values = nullptr,
                                                  .scales = memory.scales.data() + begin,
                                                  .nan_rows = memory.nan_rows.data() + begin});
                          });
  }
  return {{words, args.samples, depth, static_cast<std::uint32_t>(planes)},
          int8 ? memory.scales.data() : nullptr,
          memory.nan_rows.data()};
}

void finish(const std::int32_t* sums, std::size_t stride, std::size_t row, std::size_t rows,
            std::size_t output, std::size_t outputs, const PackedWeights& weights,
            const QuantizedInput& input, const LinearArgs& args, std::size_t out_stride) {
  const std::size_t bias_bytes = kernels::float_bytes(args.bias_type);
  const std::size_t out_bytes = kernels::float_bytes(args.output_type);
  const bool each = weights.scales.size() > 1;
  kernels::active().epilogue(
      {.accumulators = sums,
       .rows = rows,
       .outputs = outputs,
       .accumulator_stride = stride,
       .row_scales = input.scales == nullptr ? nullptr : input.scales + row,
       .output_scales =
           weights.scales.empty() ? nullptr : weights.scales.data() + (each ? output : 0),
       .output_scale_step = each ? std::size_t{1} : std::size_t{0},
       .bias = args.bias == nullptr
                   ? nullptr
                   : static_cast<const std::byte*>(args.bias) + output * bias_bytes,
       .bias_type = args.bias_type,
       .nan_rows = input.nan_rows + row,
       .nan_outputs = weights.nan_outputs.empty() ? nullptr : weights.nan_outputs.data() + output,
       .out = static_cast<std::byte*>(args.output) + (row * out_stride + output) * out_bytes,
       .out_type = args.output_type,
       .out_stride = out_stride,
       .wide = args.input_type == FloatType::kFloat64});
}

void multiply(const QuantizedInput& input, const PackedWeights& weights, const LinearArgs& args,
              const Executor& executor) {
  const BitPlaneView matrix = weights.planes.view();
  const std::size_t outputs = matrix.rows;
  const std::size_t row_blocks = (args.samples + kBlockRows - 1) / kBlockRows;
  // Enough output blocks for the threads, where there are outputs enough.
  std::size_t block_outputs = kBlockOutputs;
  const std::size_t products = args.samples * outputs * matrix.trits;
  if (executor.threads() > 1 && products > 2 * kGrainProducts && row_blocks < executor.threads()) {
    const std::size_t share = (outputs + executor.threads() - 1) / executor.threads();
    block_outputs = std::clamp<std::size_t>((share + 15) / 16 * 16, 16, kBlockOutputs);
  }
  const std::size_t output_blocks = (outputs + block_outputs - 1) / block_outputs;
  const std::size_t blocks = row_blocks * output_blocks;
  const std::size_t grain = std::max<std::size_t>(1, blocks * kGrainProducts / (products + 1));
  const auto& kernel = kernels::active();
  executor.parallel_for(blocks, grain, [&](std::size_t begin, std::size_t end) {
    thread_local AlignedBuffer<std::int32_t> buffer;
    std::int32_t* sums = buffer.reserve(kBlockRows * kBlockOutputs);
    for (std::size_t block = begin; block < end; ++block) {
      // Rows vary fastest: a block of weights serves all rows before the next is read.
      const std::size_t row = block % row_blocks * kBlockRows;
      const std::size_t output = block / row_blocks * block_outputs;
      const std::size_t rows = std::min(kBlockRows, args.samples - row);
      const std::size_t count = std::min(block_outputs, outputs - output);
      for (std::uint32_t p = 0; p < input.planes.planes; ++p) {
        kernel.trit_gemm({.activations = input.planes.plane(p).row(row),
                          .rows = rows,
                          .weights = matrix.row(output),
                          .outputs = count,
                          .blocks = matrix.blocks(),
                          .out = sums,
                          .out_stride = count,
                          .triple = p != 0});
      }
      finish(sums, count, row, rows, output, count, weights, input, args, outputs);
    }
  });
}

}  // namespace

Layer::Layer(LayerSpec spec, std::shared_ptr<Fabric> fabric)
    : spec_(std::move(spec)), fabric_(std::move(fabric)) {
  const std::uint64_t mask = spec_.tile_mask != 0 ? spec_.tile_mask
                                                  : placement::default_tile_mask(
                                                        fabric_->config().geometry, spec_.outputs);
  tile_slots_ = static_cast<std::uint32_t>(std::popcount(mask));
}

Layer::~Layer() {
  if (id_) fabric_->leave(*id_);
}

Result<std::shared_ptr<Layer>> Layer::make(LayerSpec spec, std::shared_ptr<Fabric> fabric,
                                           const Layer* replacing) {
  spec.fabric = fabric->spec();
  // The layer is there before it enters: where memory runs out, nobody has entered.
  auto layer = std::shared_ptr<Layer>(new Layer(std::move(spec), std::move(fabric)));
  const auto id =
      layer->fabric_->enter(layer->spec_, replacing == nullptr ? std::nullopt : replacing->id_);
  if (!id) return id.error();
  layer->id_ = id.value();
  return layer;
}

Result<std::shared_ptr<Layer>> Layer::make_constant(LayerSpec spec, std::shared_ptr<Fabric> fabric,
                                                    PackedWeights weights) {
  const BitPlaneView planes = weights.planes.view();
  if (auto s = check_shape(spec, planes.rows, planes.trits); !s) return std::move(s).error();
  spec.quantizer = WeightQuantizer::kCustom;
  weights.serial = next_serial();
  const auto packed = std::make_shared<const PackedWeights>(std::move(weights));
  auto made = make(std::move(spec), std::move(fabric));
  if (!made) return std::move(made).error();
  Layer& layer = *made.value();
  layer.constant_ = {packed, layer.fabric_->stepped() ? nullptr : layer.statistics_of(*packed)};
  layer.note_sparsity(packed->sparsity());
  return made;
}

Status check_shape(const LayerSpec& spec, std::uint64_t outputs, std::uint64_t depth) {
  if (outputs == spec.outputs && depth == spec.depth) return {};
  return Error{ErrorCode::kInvalidArgument,
               "layer '" + spec.name + "' is of " + std::to_string(spec.outputs) + " x " +
                   std::to_string(spec.depth) + " weights, and was given " +
                   std::to_string(outputs) + " x " + std::to_string(depth)};
}

Layer::Packed Layer::adopt(PackedWeights weights) {
  // Weights that moved without moving a trit are, to the device, the same.
  const bool same_trits =
      packed_.weights && equal(packed_.weights->planes.view(), weights.planes.view());
  auto statistics = same_trits ? packed_.statistics : nullptr;
  weights.serial = same_trits ? packed_.weights->serial : next_serial();
  Packed before = std::exchange(packed_, {});
  packed_.weights = std::make_shared<const PackedWeights>(std::move(weights));
  packed_.statistics = std::move(statistics);
  return before;
}

std::shared_ptr<const LaneStatistics> Layer::statistics_of(const PackedWeights& weights) const {
  return std::make_shared<const LaneStatistics>(weights.planes.view(),
                                                fabric_->config().geometry.lanes(), tile_slots_);
}

Layer::Snapshot Layer::take_snapshot() {
  if (!packed_.statistics && !fabric_->stepped()) {
    packed_.statistics = statistics_of(*packed_.weights);
  }
  return {packed_.weights, packed_.statistics};
}

Result<Layer::Snapshot> Layer::snapshot(const WeightSource& source, const Executor& executor) {
  if (spec_.quantizer == WeightQuantizer::kCustom) {
    return Error{ErrorCode::kInvalidArgument,
                 "layer '" + spec_.name + "' has a quantizer of its own: it takes trits"};
  }
  if (auto s = check_shape(spec_, source.outputs, source.depth); !s) return std::move(s).error();
  Packed before;  // ends after the lock has
  std::shared_ptr<const void> owner_before;
  const std::scoped_lock lock(mutex_);
  // The first comparison after training is by content too: a write through `.data` between the last
  // training forward and eval() raises no version.
  const bool by_content = source.by_content || packed_.seen_by_content;
  const bool same_place = packed_.weights && packed_.data == source.data &&
                          packed_.type == source.type && packed_.version == source.version;
  if (same_place && !by_content) return take_snapshot();

  std::optional<std::uint64_t> fingerprint;
  if (by_content) fingerprint = kernels::fingerprint(source.data, source_bytes(source));
  const bool same_content = by_content && packed_.weights && packed_.type == source.type &&
                            packed_.fingerprint == fingerprint;
  if (!same_content) {
    before = adopt(pack_weights(source, spec_.quantizer, executor));
    packed_.fingerprint = fingerprint;
  }
  packed_.data = source.data;
  packed_.type = source.type;
  packed_.version = source.version;
  packed_.seen_by_content = source.by_content;
  if (!same_place || !packed_.owner) {
    owner_before =
        std::exchange(packed_.owner, source.owner == nullptr ? nullptr : source.owner->retain());
  }
  return take_snapshot();
}

Result<Layer::Snapshot> Layer::snapshot(const TritSource& source) {
  if (constant_.weights) {
    return Error{ErrorCode::kInvalidArgument,
                 "layer '" + spec_.name + "' has constant weights: it takes no others"};
  }
  if (auto s = check_shape(spec_, source.outputs, source.depth); !s) return std::move(s).error();
  Packed before;  // ends after the lock has
  const std::scoped_lock lock(mutex_);
  const std::uint64_t trits = kernels::fingerprint(source.trits, source.outputs * source.depth);
  const std::uint64_t scales =
      kernels::fingerprint(source.scales, source.scale_count * sizeof(double));
  const std::uint64_t nans =
      source.nan_outputs == nullptr ? 0 : kernels::fingerprint(source.nan_outputs, source.outputs);
  const std::uint64_t fingerprint = trits ^ std::rotl(scales, 21) ^ std::rotl(nans, 42);
  if (!packed_.weights || packed_.fingerprint != fingerprint) {
    auto packed = pack_trits(source);
    if (!packed) return std::move(packed).error();
    before = adopt(std::move(packed).value());
    packed_.fingerprint = fingerprint;
  }
  return take_snapshot();
}

Status Layer::run(const Snapshot& snapshot, const LinearArgs& args, const Executor& executor) {
  if (args.samples == 0 || spec_.outputs == 0) return {};
  if (spec_.depth == 0) {  // an empty product: bias alone, and nothing for the device to do
    const std::vector<std::int32_t> zeros(spec_.outputs);
    const std::vector<std::uint8_t> no_nans(args.samples);
    const QuantizedInput none{{}, nullptr, no_nans.data()};
    for (std::size_t row = 0; row < args.samples; ++row) {
      finish(zeros.data(), spec_.outputs, row, 1, 0, spec_.outputs, *snapshot.weights, none, args,
             spec_.outputs);
    }
    return {};
  }
  const QuantizedInput input = quantize_input(args, spec_.depth, spec_.activation, executor);
  Fabric::Forward work{.weights = snapshot.weights,
                       .statistics = snapshot.statistics.get(),
                       .activations = input.planes};
  if (fabric_->stepped()) {
    std::vector<std::int32_t> sums(args.samples * spec_.outputs);
    if (auto s = fabric_->forward(*id_, work, executor, sums); !s) return s;
    finish(sums.data(), spec_.outputs, 0, args.samples, 0, spec_.outputs, *snapshot.weights, input,
           args, spec_.outputs);
    return {};
  }
  if (auto s = fabric_->forward(*id_, work, executor, {}); !s) return s;
  multiply(input, *snapshot.weights, args, executor);
  return {};
}

Status Layer::forward(const WeightSource& weights, const LinearArgs& args,
                      const Executor& executor) {
  auto taken = snapshot(weights, executor);
  if (!taken) return std::move(taken).error();
  return run(taken.value(), args, executor);
}

Status Layer::forward(const TritSource& weights, const LinearArgs& args, const Executor& executor) {
  auto taken = snapshot(weights);
  if (!taken) return std::move(taken).error();
  return run(taken.value(), args, executor);
}

Status Layer::forward(const LinearArgs& args, const Executor& executor) {
  if (!constant_.weights) {
    return Error{
        ErrorCode::kInvalidArgument,
        "layer '" + spec_.name + "' has no constant weights: it takes them with a forward"};
  }
  return run(constant_, args, executor);
}

Result<bool> Layer::prefetch(const WeightSource& weights, const Executor& executor) {
  auto taken = snapshot(weights, executor);
  if (!taken) return std::move(taken).error();
  if (spec_.outputs == 0 || spec_.depth == 0) return true;  // nothing to load
  return fabric_->prefetch(*id_, taken.value().weights);
}

Result<bool> Layer::prefetch(const TritSource& weights) {
  auto taken = snapshot(weights);
  if (!taken) return std::move(taken).error();
  if (spec_.outputs == 0 || spec_.depth == 0) return true;  // nothing to load
  return fabric_->prefetch(*id_, taken.value().weights);
}

void Layer::refresh() {
  Packed before;  // ends after the lock has
  const std::scoped_lock lock(mutex_);
  before = std::exchange(packed_, {});
}

std::size_t Layer::packed_bytes() const {
  if (constant_.weights) return constant_.weights->bytes();
  const std::scoped_lock lock(mutex_);
  return packed_.weights ? packed_.weights->bytes() : 0;
}

}  // namespace tfmbs::runtime
