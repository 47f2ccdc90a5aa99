// The dialect's ops as linalg: the numbers of docs/python-api.md, operation by operation. The same
// builders serve tensors and memrefs.
#pragma once

#include "mlir/IR/Builders.h"
#include "mlir/IR/Operation.h"
#include "mlir/IR/Value.h"
#include "tfmbs-mlir/Dialect/TfmbsOps.h"

namespace tfmbs::ir {

// What overwrote a destination: the op's result on tensors, the destination itself on memrefs.
struct Quantized {
  mlir::Value values;
  mlir::Value scales;
};

// Rows of floats to int8 values and a scale a row.
Quantized build_quantize(mlir::OpBuilder& builder, mlir::Location loc, mlir::Value input,
                         mlir::Value values, mlir::Value scales, Activation activation);

// i32 sums on a destination that is filled with zero first. `weights` is K x N. The matmul gets
// tile_mask, weight_addr and telemetry of `layer`.
mlir::Value build_matmul(mlir::OpBuilder& builder, mlir::Operation* layer, mlir::Value input,
                         mlir::Value weights, mlir::Value init);

// Sums to floats; `bias` may be null.
mlir::Value build_dequantize(mlir::OpBuilder& builder, mlir::Location loc, mlir::Value sums,
                             mlir::Value row_scales, mlir::Value output_scales, mlir::Value bias,
                             mlir::Value init, bool relu);

}  // namespace tfmbs::ir
