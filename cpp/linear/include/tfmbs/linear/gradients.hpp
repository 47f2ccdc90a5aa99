// The straight-through gradients of a linear layer (docs/python-api.md, "Gradients"):
//   of the input   (g W) inside the input's window     W: weights, trits times scales
//   of the weight  (g^T X) inside the weight's window  X: inputs, quantized and rescaled
// The float products are the caller's. W and X are decoded tile by tile; no whole copy of either is
// made in floats. The result is the same at every call with the same product and number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>

#include "tfmbs/execution/executor.hpp"
#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/format/group_scales.hpp"
#include "tfmbs/format/weight_panels.hpp"
#include "tfmbs/kernels/kernels.hpp"
#include "tfmbs/linear/kept_activations.hpp"
#include "tfmbs/linear/weight_sources.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::linear {

// A borrowed matrix of floats; one of the two strides is 1.
template <typename Pointer>
struct FloatMatrix {
  Pointer data;  // of fp64 where `wide`, else of fp32
  bool wide;
  std::size_t rows;
  std::size_t columns;
  std::size_t row_stride;  // in elements
  std::size_t column_stride{1};
};
using FloatInput = FloatMatrix<const void*>;
using FloatOutput = FloatMatrix<void*>;

// A general matrix product.
class MatrixProduct {
 public:
  MatrixProduct() = default;
  MatrixProduct(const MatrixProduct&) = delete;
  MatrixProduct& operator=(const MatrixProduct&) = delete;
  virtual ~MatrixProduct() = default;
  // c = a b, or c += a b where `add`. All have the type of c; none is empty.
  virtual void multiply(const FloatInput& a, const FloatInput& b, const FloatOutput& c,
                        bool add) const = 0;
};

// Trits, row-major.
struct TritMatrix {
  const std::int8_t* values;
};

// A quantized weight in one of the forms that it has in memory.
struct TernaryWeights {
  std::variant<WeightPanelsView, BitPlaneView, TritMatrix> trits;
  std::size_t outputs;
  std::size_t depth;
  std::span<const double> scales{};  // empty: 1; one value: for all outputs; else one each
  GroupScalesView groups{};          // null values: there are none
};

// out: contiguous, grad.rows x weight.depth, of `type`, which is fp64 exactly where grad is.
// window: of the input; null, or without one: all of it is inside. Throws std::bad_alloc, and what
// `product` throws.
void input_gradient(const FloatInput& grad, const TernaryWeights& weight, const KeptRows* window,
                    void* out, kernels::FloatType type, const MatrixProduct& product,
                    const execution::Executor& executor);

// |w| above which a weight gets no gradient.
inline constexpr double kWeightWindow = 1.0;

// out: contiguous, of the weight's shape and type. weight.data may be null: the gradient is then
// that of a weight inside its window. Precondition: the kept rows have values; grad is fp64 exactly
// where the weight is. Throws as above.
void weight_gradient(const FloatInput& grad, const KeptRows& input, const FloatWeights& weight,
                     void* out, const MatrixProduct& product, const execution::Executor& executor);

}  // namespace tfmbs::linear

#pragma GCC visibility pop
