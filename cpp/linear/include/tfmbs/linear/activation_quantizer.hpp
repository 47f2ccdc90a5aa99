// The input of a forward pass, quantized: what the product multiplies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tfmbs/execution/executor.hpp"
#include "tfmbs/execution/workspace.hpp"
#include "tfmbs/format/activations.hpp"
#include "tfmbs/linear/activation.hpp"
#include "tfmbs/linear/linear_args.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::linear {

// One value a sample: its scale (null for 1), and 1 where it holds a value that is not finite.
struct SampleScales {
  const double* scales;
  const std::uint8_t* nan_rows;
};

// Quantizes rows [row, row + rows) and gives them. A borrowed reference to a callable.
class QuantizeRows {
 public:
  template <typename Callable>
  QuantizeRows(const Callable& callable) noexcept  // NOLINT(google-explicit-constructor)
      : object_(&callable), call_([](const void* object, std::size_t row, std::size_t rows) {
          return (*static_cast<const Callable*>(object))(row, rows);
        }) {}
  ActivationRows operator()(std::size_t row, std::size_t rows) const {
    return call_(object_, row, rows);
  }

 private:
  const void* object_;
  ActivationRows (*call_)(const void*, std::size_t, std::size_t);
};

// Sees the quantized rows block by block, while a block is in the nearest cache.
class BlockVisitor {
 public:
  BlockVisitor() = default;
  BlockVisitor(const BlockVisitor&) = delete;
  BlockVisitor& operator=(const BlockVisitor&) = delete;
  virtual ~BlockVisitor() = default;
  // Called once for each range of rows that a thread takes, by that thread: calls `quantize` for
  // consecutive blocks of at most `block_rows` rows that cover [begin, end). May throw.
  virtual void visit(std::size_t begin, std::size_t end, std::size_t block_rows,
                     const QuantizeRows& quantize) = 0;
};

// Its results lie in the caller's scratch and end with it.
class ActivationQuantizer {
 public:
  // The arguments must outlive it. Preconditions: samples, depth > 0.
  ActivationQuantizer(const LinearArgs& args, std::size_t depth, Activation activation,
                      execution::Scratch& scratch) noexcept
      : args_(args), depth_(depth), mode_(mode_of(activation)), scratch_(scratch) {}

  // Once. `planes`: int8 activations as bit planes as well. Throws std::bad_alloc, and what the
  // visitor throws.
  void quantize(const execution::Executor& executor, BlockVisitor* visitor = nullptr,
                bool planes = false);

  [[nodiscard]] const ActivationMode& mode() const noexcept { return mode_; }
  [[nodiscard]] std::size_t depth() const noexcept { return depth_; }
  [[nodiscard]] std::size_t samples() const noexcept { return args_.samples; }
  // What quantize() made.
  [[nodiscard]] const std::byte* row(std::size_t sample) const noexcept {
    return rows_.data() + sample * row_bytes_;
  }
  [[nodiscard]] QuantizedActivations activations() const noexcept;
  [[nodiscard]] SampleScales scales() const noexcept {
    return {mode_.has_scales ? scales_.data() : nullptr, nan_rows_.data()};
  }

 private:
  const LinearArgs& args_;
  std::size_t depth_;
  const ActivationMode& mode_;
  execution::Scratch& scratch_;
  std::size_t row_bytes_{0};
  std::span<std::byte> rows_;
  std::span<std::uint64_t> planes_;
  std::span<double> scales_;
  std::span<std::uint8_t> nan_rows_;
};

}  // namespace tfmbs::linear

#pragma GCC visibility pop
