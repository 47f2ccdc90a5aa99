#include "tfmbs/linear/quantized_weights.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <mutex>
#include <span>
#include <string>
#include <utility>

#include "tfmbs/format/pt5.hpp"
#include "tfmbs/format/text.hpp"
#include "tfmbs/kernels/weight_statistics.hpp"

namespace tfmbs::linear {
namespace {

using execution::Executor;

constexpr double kScaleFloor = 1e-5;   // BitNet b1.58's clamp of the mean
constexpr double kTwnThreshold = 0.7;  // Li et al., Ternary Weight Networks, 2016
constexpr std::size_t kGrainWeights = 1U << 16;

const std::byte* row_of(const FloatWeights& source, std::size_t row) {
  return static_cast<const std::byte*>(source.data) +
         row * source.depth * kernels::float_bytes(source.type);
}

std::size_t row_grain(const FloatWeights& source) {
  return std::max<std::size_t>(1, kGrainWeights / std::max<std::uint64_t>(1, source.depth));
}

// A scale in the precision in which the epilogue uses it.
double working_scale(double scale, kernels::FloatType type) {
  return type == kernels::FloatType::kFloat64 ? scale
                                              : static_cast<double>(static_cast<float>(scale));
}

struct Rule {
  std::vector<double> thresholds;  // one an output; empty: 0
  std::vector<double> scales;
};

Rule absmean_rule(const FloatWeights& source, const Executor& executor) {
  kernels::MagnitudeSum total(source.type);
  std::mutex mutex;  // of total
  executor.parallel_for(source.outputs, row_grain(source), [&](std::size_t begin, std::size_t end) {
    kernels::MagnitudeSum part(source.type);
    part.add(row_of(source, begin), (end - begin) * source.depth);
    const std::lock_guard lock(mutex);
    total.merge(part);
  });
  const WeightRule rule = weight_rule(WeightQuantizer::kAbsmean, total.mean(), source.type);
  return {std::vector<double>(source.outputs, rule.threshold), {rule.scale}};
}

Rule twn_rule(const FloatWeights& source, const Executor& executor) {
  Rule rule{std::vector<double>(source.outputs), std::vector<double>(source.outputs)};
  executor.parallel_for(source.outputs, row_grain(source), [&](std::size_t begin, std::size_t end) {
    for (std::size_t r = begin; r < end; ++r) {
      kernels::MagnitudeSum all(source.type);
      all.add(row_of(source, r), source.depth);
      rule.thresholds[r] = weight_rule(WeightQuantizer::kTwn, all.mean(), source.type).threshold;
      kernels::MagnitudeSum above(source.type);
      above.add(row_of(source, r), source.depth, rule.thresholds[r]);
      rule.scales[r] = weight_rule(WeightQuantizer::kTwn, above.mean(), source.type).scale;
    }
  });
  return rule;
}

// Trits that are unpacked at a time.
constexpr std::size_t kStreamTrits = 1U << 17;

Result<BitPlaneMatrix> unpack_stream(const StreamSource& source) {
  const auto& [bytes, outputs, depth, scales] = source;
  BitPlaneMatrix matrix(outputs, depth);
  if (bytes.empty()) return matrix;
  // Any five rows begin and end with whole bytes.
  const std::size_t rows_at_a_time =
      kTritsPerByte * std::max<std::size_t>(1, kStreamTrits / kTritsPerByte / depth);
  std::vector<std::int8_t> trits(std::min<std::size_t>(rows_at_a_time, outputs) * depth);
  for (std::size_t row = 0; row < outputs; row += rows_at_a_time) {
    const std::size_t rows = std::min<std::size_t>(rows_at_a_time, outputs - row);
    const std::span<std::int8_t> part(trits.data(), rows * depth);
    const std::size_t first = row * depth / kTritsPerByte;
    if (const auto s = unpack_pt5(bytes.subspan(first, pt5_bytes(part.size())), part); !s) {
      const std::uint64_t at = first + s.error().offset.value_or(0);  // in the whole stream
      return Error{ErrorCode::kEncoding,
                   "byte " + hex(bytes[at]) + " at offset " + std::to_string(at) +
                       " of the weights is no PT-5 code (0...242)",
                   at};
    }
    const auto planes = pack_bit_planes(part, rows, depth);
    if (!planes) return planes.error();
    const BitPlaneView view = planes.value().view();
    std::copy_n(view.words, rows * view.row_words(), matrix.row(row));
  }
  return matrix;
}

}  // namespace

std::uint64_t count_zeros(BitPlaneView planes) {
  std::uint64_t nonzero = 0;
  const std::span words(planes.words, planes.rows * planes.row_words());
  for (std::size_t block = 0; block < words.size(); block += kBlockWords) {
    for (std::size_t w = 0; w < kPlaneWords; ++w) {
      nonzero += static_cast<std::uint64_t>(std::popcount(words[block + w]));
    }
  }
  return std::uint64_t{planes.rows} * planes.trits - nonzero;
}

WeightRule weight_rule(WeightQuantizer quantizer, double mean, kernels::FloatType type) noexcept {
  if (quantizer == WeightQuantizer::kTwn) {
    return {.threshold = kTwnThreshold * mean, .scale = working_scale(mean, type)};
  }
  // round(w / s) clipped to +-1 is sign(w) where |w| > s / 2 (a half rounds to even, to 0).
  const double scale = std::max(mean, kScaleFloor);
  return {.threshold = 0.5 * scale, .scale = working_scale(scale, type)};
}

double QuantizedWeights::sparsity() const noexcept {
  const auto size = static_cast<double>(planes.rows()) * static_cast<double>(planes.trits());
  return size == 0.0 ? 0.0 : static_cast<double>(zeros) / size;
}

QuantizedWeights quantize_weights(const FloatWeights& source, WeightQuantizer quantizer,
                                  const Executor& executor) {
  Rule rule;
  if (quantizer == WeightQuantizer::kAbsmean) rule = absmean_rule(source, executor);
  if (quantizer == WeightQuantizer::kTwn) rule = twn_rule(source, executor);

  QuantizedWeights quantized;
  quantized.planes = BitPlaneMatrix(source.outputs, source.depth);
  quantized.scales = std::move(rule.scales);
  std::vector<std::uint8_t> nan_outputs(source.outputs);
  const auto& kernel = kernels::active();
  executor.parallel_for(source.outputs, row_grain(source), [&](std::size_t begin, std::size_t end) {
    kernel.ternarize({.input = row_of(source, begin),
                      .type = source.type,
                      .rows = end - begin,
                      .columns = source.depth,
                      .row_stride = source.depth,
                      .thresholds = rule.thresholds.empty() ? nullptr : &rule.thresholds[begin],
                      .planes = quantized.planes.row(begin),
                      .nan_rows = &nan_outputs[begin]});
  });
  if (std::find(nan_outputs.begin(), nan_outputs.end(), 1) != nan_outputs.end()) {
    quantized.nan_outputs = std::move(nan_outputs);
  }
  quantized.zeros = count_zeros(quantized.planes.view());
  return quantized;
}

Result<QuantizedWeights> read_trits(const TritSource& source) {
  auto planes =
      pack_bit_planes({source.trits, source.outputs * source.depth}, source.outputs, source.depth);
  if (!planes) {
    const std::uint64_t at = planes.error().offset.value_or(0);
    return Error{ErrorCode::kInvalidArgument,
                 "the weight quantizer gave " + std::to_string(source.trits[at]) + " at row " +
                     std::to_string(at / source.depth) + ", column " +
                     std::to_string(at % source.depth) + "; allowed are -1, 0 and +1",
                 at};
  }
  QuantizedWeights quantized;
  quantized.planes = std::move(planes).value();
  quantized.scales.assign(source.scales, source.scales + source.scale_count);
  if (source.nan_outputs != nullptr &&
      std::find(source.nan_outputs, source.nan_outputs + source.outputs, 1) !=
          source.nan_outputs + source.outputs) {
    quantized.nan_outputs.assign(source.nan_outputs, source.nan_outputs + source.outputs);
  }
  quantized.zeros = count_zeros(quantized.planes.view());
  return quantized;
}

Result<QuantizedWeights> read_stream(const StreamSource& source) {
  const auto& [bytes, outputs, depth, scales] = source;
  if (bytes.size() != pt5_bytes(outputs * depth)) {
    return Error{ErrorCode::kInvalidArgument,
                 std::to_string(bytes.size()) + " bytes of weights; a matrix of " +
                     std::to_string(outputs) + " x " + std::to_string(depth) + " takes " +
                     std::to_string(pt5_bytes(outputs * depth))};
  }
  if (scales.size() != 1 && scales.size() != outputs) {
    return Error{ErrorCode::kInvalidArgument, std::to_string(scales.size()) +
                                                  " scales; allowed are 1 and " +
                                                  std::to_string(outputs) + ", one an output"};
  }
  auto planes = unpack_stream(source);
  if (!planes) return std::move(planes).error();
  QuantizedWeights quantized;
  quantized.planes = std::move(planes).value();
  quantized.scales = scales;
  const auto is_nan = [](double scale) { return std::isnan(scale); };
  if (std::any_of(scales.begin(), scales.end(), is_nan)) {
    quantized.nan_outputs.resize(outputs);
    for (std::size_t n = 0; n < outputs; ++n) {
      quantized.nan_outputs[n] = is_nan(scales[scales.size() == 1 ? 0 : n]) ? 1 : 0;
    }
  }
  quantized.zeros = count_zeros(quantized.planes.view());
  return quantized;
}

}  // namespace tfmbs::linear
