#include "tfmbs/linear/product.hpp"

#include <algorithm>
#include <cstddef>

#include "tfmbs/execution/guided_for.hpp"
#include "tfmbs/execution/workspace.hpp"
#include "tfmbs/format/weight_panels.hpp"
#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::linear {
namespace {

using execution::Executor;
using execution::Scratch;

// Rows [row, row_end) x outputs [output, output_end) of a forward pass's output.
struct OutputPart {
  std::size_t row;
  std::size_t row_end;
  std::size_t output;
  std::size_t output_end;
};

// Rows of one kernel call, and its sums, 1 MiB, in the second or third cache until the epilogue
// reads them: 64 x 4,096, or a single row of 262,144 outputs. A kernel makes its rows ready once a
// call.
constexpr std::size_t kCallRows = 64;
constexpr std::size_t kCallSums = std::size_t{1} << 18;
// Products below which another thread costs more than it brings, and what a row costs whatever its
// size, in products.
constexpr std::size_t kGrainProducts = std::size_t{1} << 20;
constexpr std::size_t kRowProducts = 4096;
constexpr std::size_t kRowStep = 8;  // rows whose sums kernels keep in registers

// Sums of a part, row by row: exact, or of groups that were scaled (fp32, or fp64 where the input
// is).
struct Sums {
  const std::int32_t* exact{nullptr};
  const void* scaled{nullptr};
};

bool is_wide(const LinearArgs& args) noexcept {
  return args.input_type == kernels::FloatType::kFloat64;
}

void apply_epilogue(const OutputPart& part, const Sums& sums, const PackedWeights& weights,
                    const SampleScales& samples, const LinearArgs& args) noexcept {
  const std::size_t outputs = part.output_end - part.output;
  const std::size_t out_stride = weights.panels().outputs;
  const std::size_t bias_bytes = kernels::float_bytes(args.bias_type);
  const std::size_t out_bytes = kernels::float_bytes(args.output_type);
  const bool each = weights.scales().size() > 1;
  kernels::active().epilogue(
      {.accumulators = sums.exact,
       .rows = part.row_end - part.row,
       .outputs = outputs,
       .accumulator_stride = outputs,
       .row_scales = samples.scales == nullptr ? nullptr : samples.scales + part.row,
       .output_scales =
           weights.scales().empty() ? nullptr : weights.scales().data() + (each ? part.output : 0),
       .output_scale_step = each ? std::size_t{1} : std::size_t{0},
       .bias = args.bias == nullptr
                   ? nullptr
                   : static_cast<const std::byte*>(args.bias) + part.output * bias_bytes,
       .bias_type = args.bias_type,
       .nan_rows = samples.nan_rows + part.row,
       .nan_outputs =
           weights.nan_outputs().empty() ? nullptr : weights.nan_outputs().data() + part.output,
       .out =
           static_cast<std::byte*>(args.output) + (part.row * out_stride + part.output) * out_bytes,
       .out_type = args.output_type,
       .out_stride = out_stride,
       .wide = is_wide(args),
       .relu = args.relu,
       .scaled_accumulators = sums.scaled});
}

// One kernel call's products of `part`; `part.output` is a multiple of kPanelOutputs.
void multiply_block(const OutputPart& part, const ActivationQuantizer& input,
                    const PackedWeights& weights, std::int32_t* sums, std::size_t sums_stride,
                    std::byte* scratch) noexcept {
  input.mode().multiply({.activations = input.row(part.row),
                         .rows = part.row_end - part.row,
                         .row_stride = input.depth(),
                         .weights = weights.panels(),
                         .first_output = part.output,
                         .outputs = part.output_end - part.output,
                         .out = sums,
                         .out_stride = sums_stride,
                         .scratch = scratch});
}

// The same of weights with group scales.
Sums multiply_grouped_block(const OutputPart& part, const ActivationQuantizer& input,
                            const PackedWeights& weights, std::byte* sums, std::size_t sums_stride,
                            bool wide) noexcept {
  input.mode().multiply_grouped({.activations = input.row(part.row),
                                 .rows = part.row_end - part.row,
                                 .row_stride = input.depth(),
                                 .weights = weights.panels(),
                                 .scales = weights.group_scales(),
                                 .first_output = part.output,
                                 .outputs = part.output_end - part.output,
                                 .out = sums,
                                 .out_stride = sums_stride,
                                 .wide = wide});
  return {.scaled = sums};
}

// Call by call; `part.output` is a multiple of kPanelOutputs.
void multiply_part(const OutputPart& part, const ActivationQuantizer& input,
                   const PackedWeights& weights, const LinearArgs& args) {
  Scratch memory;
  const std::size_t most_rows = std::min(kCallRows, part.row_end - part.row);
  // Calls are even: a short last one would cost as much to make ready.
  const std::size_t width = part.output_end - part.output;
  const std::size_t call_outputs = kCallSums / most_rows / kPanelOutputs * kPanelOutputs;
  const std::size_t calls = std::max<std::size_t>(1, (width + call_outputs - 1) / call_outputs);
  const std::size_t panels_a_call =
      ((width + calls - 1) / calls + kPanelOutputs - 1) / kPanelOutputs;
  const std::size_t most_outputs = std::min(panels_a_call * kPanelOutputs, width);
  const bool wide = is_wide(args);
  const std::size_t sum_bytes = weights.has_groups() && wide ? sizeof(double) : sizeof(float);
  static_assert(sizeof(float) == sizeof(std::int32_t));
  const auto sums = memory.take<std::byte>(most_rows * most_outputs * sum_bytes);
  const kernels::ScratchUse use = input.mode().scratch_use();
  std::byte* scratch = nullptr;
  if (use.serves(most_rows, most_outputs)) scratch = memory.take<std::byte>(use.bytes).data();
  for (std::size_t output = part.output; output < part.output_end; output += most_outputs) {
    const std::size_t output_end = output + std::min(most_outputs, part.output_end - output);
    // A call's weights serve all rows before the next are read.
    for (std::size_t row = part.row; row < part.row_end; row += kCallRows) {
      const OutputPart call{.row = row,
                            .row_end = row + std::min(kCallRows, part.row_end - row),
                            .output = output,
                            .output_end = output_end};
      Sums made;
      if (weights.has_groups()) {
        made = multiply_grouped_block(call, input, weights, sums.data(), output_end - output, wide);
      } else {
        auto* const exact = reinterpret_cast<std::int32_t*>(sums.data());
        multiply_block(call, input, weights, exact, output_end - output, scratch);
        made.exact = exact;
      }
      apply_epilogue(call, made, weights, input.scales(), args);
    }
  }
}

// The output cut into blocks for threads to take one after the other, `wanted` of them if they are
// not too small for that. Those of the same weights follow each other, for these to be in a near
// cache.
class Blocks {
 public:
  Blocks(const WeightPanelsView& weights, std::size_t samples, std::size_t wanted,
         const kernels::ScratchUse& scratch) noexcept
      : samples_(samples),
        outputs_(weights.outputs),
        // Fives are decoded for so many rows; of others a kernel takes 32 or 64 at once.
        rows_(weights.layout == WeightLayout::kInt8Fives ? 64 : 32),
        row_blocks_((samples + rows_ - 1) / rows_) {
    // Of whole ranges of outputs, before they are made even. Each block's rows are made ready for
    // the kernel anew: some 5 % of what 8 panels cost trit x trit, and
    // of 16 where int8 makes tables.
    const bool tables = scratch.bytes > 0;
    const std::size_t least_panels = tables ? 16 : 8;
    constexpr std::size_t kMostPanels = kCallSums / kCallRows / kPanelOutputs;
    const std::size_t panels = weights.panels();
    const std::size_t most = std::clamp(panels * row_blocks_ / wanted, least_panels, kMostPanels);
    const std::size_t ranges = (panels + most - 1) / most;
    panels_ = (panels + ranges - 1) / ranges;
    count_ = row_blocks_ * ((panels + panels_ - 1) / panels_);
  }

  [[nodiscard]] std::size_t count() const noexcept { return count_; }
  [[nodiscard]] OutputPart part(std::size_t block) const noexcept {
    const std::size_t row = block % row_blocks_ * rows_;
    const std::size_t output = block / row_blocks_ * panels_ * kPanelOutputs;
    return {.row = row,
            .row_end = std::min(samples_, row + rows_),
            .output = output,
            .output_end = std::min(outputs_, output + panels_ * kPanelOutputs)};
  }

 private:
  std::size_t samples_;
  std::size_t outputs_;
  std::size_t rows_;
  std::size_t row_blocks_;
  std::size_t panels_{0};  // a block's
  std::size_t count_{0};
};

}  // namespace

// Much work is shared block by block, so that a thread waits for a slower one's last block at most.
// Less, and rows that a kernel takes at once, are cut once: threads share the panels of weights, or
// the rows where there are too few panels for all.
void multiply(const ActivationQuantizer& input, const PackedWeights& weights,
              const LinearArgs& args, const Executor& executor) {
  constexpr std::size_t kBlocksAThread = 8;
  constexpr std::size_t kPanelsAThread = 8;  // the last may be short, and one more is an eighth
  const WeightPanelsView panels = weights.panels();
  const std::size_t threads = executor.threads();
  const std::size_t products_a_row = panels.outputs * panels.depth + kRowProducts;
  if (threads > 1 && args.samples > kRowStep) {
    const std::size_t wanted = kBlocksAThread * threads;
    const Blocks blocks(panels, args.samples, wanted, input.mode().scratch_use());
    if (blocks.count() >= wanted &&
        args.samples * products_a_row / blocks.count() >= kGrainProducts) {
      execution::guided_for(executor, blocks.count(), [&](std::size_t begin, std::size_t end) {
        for (; begin < end; ++begin) multiply_part(blocks.part(begin), input, weights, args);
      });
      return;
    }
  }
  if (panels.panels() >= kPanelsAThread * threads || args.samples <= kRowStep) {
    const std::size_t grain = 1 + kGrainProducts / (args.samples * kPanelOutputs * panels.depth);
    executor.parallel_for(panels.panels(), grain, [&](std::size_t begin, std::size_t end) {
      multiply_part({.row = 0,
                     .row_end = args.samples,
                     .output = begin * kPanelOutputs,
                     .output_end = std::min(panels.outputs, end * kPanelOutputs)},
                    input, weights, args);
    });
    return;
  }
  const std::size_t steps = (args.samples + kRowStep - 1) / kRowStep;
  const std::size_t grain = 1 + kGrainProducts / (kRowStep * products_a_row);
  executor.parallel_for(steps, grain, [&](std::size_t begin, std::size_t end) {
    multiply_part({.row = begin * kRowStep,
                   .row_end = std::min(args.samples, end * kRowStep),
                   .output = 0,
                   .output_end = panels.outputs},
                  input, weights, args);
  });
}

std::size_t scale_groups(const PackedWeights& weights) noexcept {
  return weights.has_groups() ? weights.group_scales().groups() : 1;
}

namespace {

// One sample's activations as integers.
void activation_values(const ActivationQuantizer& input, std::size_t sample,
                       std::span<std::int8_t> values) noexcept {
  const QuantizedActivations activations = input.activations();
  for (std::size_t k = 0; k < values.size(); ++k) {
    values[k] = activations.values != nullptr
                    ? activations.values[sample * values.size() + k]
                    : static_cast<std::int8_t>(activations.planes.plane(0).trit(sample, k));
  }
}

void multiply_group_sums(const ActivationQuantizer& input, const PackedWeights& weights,
                         std::span<std::int32_t> sums) {
  const std::size_t outputs = weights.outputs();
  const std::size_t depth = weights.depth();
  const std::size_t group = weights.group_scales().group;
  Scratch memory;
  const auto values = memory.take<std::int8_t>(depth);
  std::fill(sums.begin(), sums.end(), 0);
  for (std::size_t m = 0; m < input.samples(); ++m) {
    activation_values(input, m, values);
    for (std::size_t n = 0; n < outputs; ++n) {
      const BitPlaneMatrix row = weights.rows(n, 1);
      for (std::size_t k = 0; k < depth; ++k) {
        sums[(k / group * input.samples() + m) * outputs + n] += values[k] * row.view().trit(0, k);
      }
    }
  }
}

// The grouped products' formula (kernels.hpp), in Float.
template <typename Float>
void apply_group_epilogue(std::span<const std::int32_t> sums, const ActivationQuantizer& input,
                          const PackedWeights& weights, const LinearArgs& args) {
  const std::size_t outputs = weights.outputs();
  const GroupScalesView& scales = weights.group_scales();
  Scratch memory;
  const auto scaled = memory.take<Float>(args.samples * outputs);
  for (std::size_t m = 0; m < args.samples; ++m) {
    for (std::size_t n = 0; n < outputs; ++n) {
      Float sum = 0;
      for (std::size_t g = 0; g < scales.groups(); ++g) {
        const auto exact = static_cast<Float>(sums[(g * args.samples + m) * outputs + n]);
        const Float product = exact * static_cast<Float>(scales.values[scales.index(n, g)]);
        sum += product;
      }
      scaled[m * outputs + n] = sum;
    }
  }
  apply_epilogue({.row = 0, .row_end = args.samples, .output = 0, .output_end = outputs},
                 {.scaled = scaled.data()}, weights, input.scales(), args);
}

}  // namespace

void multiply_sums(const ActivationQuantizer& input, const PackedWeights& weights,
                   std::span<std::int32_t> sums) {
  if (weights.has_groups()) return multiply_group_sums(input, weights, sums);
  const OutputPart all{
      .row = 0, .row_end = input.samples(), .output = 0, .output_end = weights.outputs()};
  multiply_block(all, input, weights, sums.data(), weights.outputs(), nullptr);
}

void multiply_values(const std::int8_t* values, std::size_t samples, const PackedWeights& weights,
                     std::int32_t* sums, const Executor& executor) {
  const ActivationMode& mode = mode_of(Activation::kInt8);
  const WeightPanelsView panels = weights.panels();
  const kernels::ScratchUse use = mode.scratch_use();
  const std::size_t grain = 1 + kGrainProducts / (samples * kPanelOutputs * panels.depth);
  executor.parallel_for(panels.panels(), grain, [&](std::size_t begin, std::size_t end) {
    const std::size_t first = begin * kPanelOutputs;
    const std::size_t outputs = std::min(panels.outputs, end * kPanelOutputs) - first;
    Scratch memory;
    std::byte* scratch = nullptr;
    if (use.serves(std::min(kCallRows, samples), outputs)) {
      scratch = memory.take<std::byte>(use.bytes).data();
    }
    for (std::size_t row = 0; row < samples; row += kCallRows) {
      mode.multiply({.activations = values + row * panels.depth,
                     .rows = std::min(kCallRows, samples - row),
                     .row_stride = panels.depth,
                     .weights = panels,
                     .first_output = first,
                     .outputs = outputs,
                     .out = sums + row * panels.outputs + first,
                     .out_stride = panels.outputs,
                     .scratch = scratch});
    }
  });
}

void apply_epilogue(std::span<const std::int32_t> sums, const ActivationQuantizer& input,
                    const PackedWeights& weights, const LinearArgs& args) {
  if (weights.has_groups()) {
    if (is_wide(args)) return apply_group_epilogue<double>(sums, input, weights, args);
    return apply_group_epilogue<float>(sums, input, weights, args);
  }
  apply_epilogue({.row = 0, .row_end = args.samples, .output = 0, .output_end = weights.outputs()},
                 {.exact = sums.data()}, weights, input.scales(), args);
}

void bias_alone(const PackedWeights& weights, const LinearArgs& args) {
  Scratch memory;
  const auto zeros = memory.take<std::int32_t>(weights.outputs());
  std::fill(zeros.begin(), zeros.end(), 0);
  const auto no_nans = memory.take<std::uint8_t>(args.samples);
  std::fill(no_nans.begin(), no_nans.end(), std::uint8_t{0});
  for (std::size_t row = 0; row < args.samples; ++row) {
    apply_epilogue({.row = row, .row_end = row + 1, .output = 0, .output_end = weights.outputs()},
                   {.exact = zeros.data()}, weights, {nullptr, no_nans.data()}, args);
  }
}

}  // namespace tfmbs::linear
