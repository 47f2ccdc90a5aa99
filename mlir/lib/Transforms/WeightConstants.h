// Packed weights as what linalg multiplies by: a constant i8 matrix of K x N.
#pragma once

#include "mlir/IR/Builders.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/IR/Value.h"
#include "tfmbs-mlir/Dialect/TfmbsOps.h"

namespace tfmbs::ir {

// The constant, made where `weights` stands: a tensor for a tensor, a global's memref for a memref.
// Precondition: the op is valid.
mlir::Value build_weight_constant(mlir::OpBuilder& builder, WeightsOp weights,
                                  mlir::SymbolTableCollection& symbols);

}  // namespace tfmbs::ir
