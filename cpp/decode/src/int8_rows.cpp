#include "tfmbs/decode/int8_rows.hpp"

#include <algorithm>

#include "tfmbs/execution/workspace.hpp"

namespace tfmbs::decode {
namespace {

// What a thread takes at least: some microseconds.
constexpr std::size_t kGrainBytes = std::size_t{1} << 17;
// Outputs of a kernel call: their sums stay in the nearest cache, and the weights that several rows
// of activations share in the next.
constexpr std::size_t kCallOutputs = 64;
constexpr std::size_t kCallRows = 16;

std::size_t rows_of_grain(std::size_t row_bytes) {
  return 1 + kGrainBytes / std::max<std::size_t>(1, row_bytes);
}

}  // namespace

void quantize_rows(const FloatRows& from, std::int8_t* values, double* scales,
                   std::uint8_t* nan_rows, const execution::Executor& executor) {
  const std::size_t row_bytes = from.columns * kernels::float_bytes(from.type);
  executor.parallel_for(
      from.rows, rows_of_grain(row_bytes), [&](std::size_t begin, std::size_t end) {
        kernels::active().quantize_int8(
            {.input = static_cast<const std::byte*>(from.data) + begin * row_bytes,
             .type = from.type,
             .rows = end - begin,
             .columns = from.columns,
             .row_stride = from.columns,
             .planes = nullptr,
             .plane_stride = 0,
             .values = values + begin * from.columns,
             .scales = scales + begin,
             .nan_rows = nan_rows + begin});
      });
}

void int8_linear(const Int8Rows& weights, const linear::LinearArgs& args,
                 const execution::Executor& executor) {
  if (args.samples == 0 || weights.outputs == 0) return;
  execution::Scratch memory;
  const auto activations = memory.take<std::int8_t>(args.samples * weights.depth);
  const auto scales = memory.take<double>(args.samples);
  const auto nan_rows = memory.take<std::uint8_t>(args.samples);
  quantize_rows({args.input, args.input_type, args.samples, weights.depth}, activations.data(),
                scales.data(), nan_rows.data(), executor);
  const std::size_t bias_bytes = kernels::float_bytes(args.bias_type);
  const std::size_t out_bytes = kernels::float_bytes(args.output_type);
  executor.parallel_for(
      weights.outputs, rows_of_grain(weights.depth), [&](std::size_t begin, std::size_t end) {
        std::int32_t sums[kCallRows * kCallOutputs];
        for (std::size_t n = begin; n < end; n += kCallOutputs) {
          const std::size_t outputs = std::min(kCallOutputs, end - n);
          for (std::size_t m = 0; m < args.samples; m += kCallRows) {
            const std::size_t rows = std::min(kCallRows, args.samples - m);
            kernels::active().dense_int8_matmul(
                {.activations = activations.data() + m * weights.depth,
                 .rows = rows,
                 .row_stride = weights.depth,
                 .weights = weights.values + n * weights.depth,
                 .weight_stride = weights.depth,
                 .outputs = outputs,
                 .depth = weights.depth,
                 .out = sums,
                 .out_stride = outputs});
            kernels::active().epilogue(
                {.accumulators = sums,
                 .rows = rows,
                 .outputs = outputs,
                 .accumulator_stride = outputs,
                 .row_scales = scales.data() + m,
                 .output_scales = weights.scales + n,
                 .output_scale_step = 1,
                 .bias = args.bias == nullptr
                             ? nullptr
                             : static_cast<const std::byte*>(args.bias) + n * bias_bytes,
                 .bias_type = args.bias_type,
                 .nan_rows = nan_rows.data() + m,
                 .nan_outputs = weights.nan_rows == nullptr ? nullptr : weights.nan_rows + n,
                 .out =
                     static_cast<std::byte*>(args.output) + (m * weights.outputs + n) * out_bytes,
                 .out_type = args.output_type,
                 .out_stride = weights.outputs,
                 .wide = false,
                 .relu = args.relu});
          }
        }
      });
}

}  // namespace tfmbs::decode
