// A dense layer with int8 weights, one scale a row: for an output head. Weights and inputs are
// quantized alike, by their row's largest magnitude (kernels::QuantizeInt8Args has the formula);
// products are exact, then scaled as a ternary layer's (kernels::EpilogueArgs).
#pragma once

#include <cstddef>
#include <cstdint>

#include "tfmbs/execution/executor.hpp"
#include "tfmbs/kernels/kernels.hpp"
#include "tfmbs/linear/linear_args.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::decode {

struct FloatRows {
  const void* data{nullptr};  // contiguous
  kernels::FloatType type{};
  std::size_t rows{0};
  std::size_t columns{0};
};

// values: rows x columns; scales, nan_rows: one a row (1 where a value of the row is not finite; it
// is all zero then).
void quantize_rows(const FloatRows& from, std::int8_t* values, double* scales,
                   std::uint8_t* nan_rows, const execution::Executor& executor);

struct Int8Rows {
  const std::int8_t* values{nullptr};  // outputs x depth, contiguous
  std::size_t outputs{0};
  std::size_t depth{0};  // at most kernels::kMaxDenseDepth
  const double* scales{nullptr};
  const std::uint8_t* nan_rows{nullptr};  // or null
};

// Throws std::bad_alloc. Precondition: args.input_type is not fp64.
void int8_linear(const Int8Rows& weights, const linear::LinearArgs& args,
                 const execution::Executor& executor);

}  // namespace tfmbs::decode

#pragma GCC visibility pop
