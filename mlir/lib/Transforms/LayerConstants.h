// What layers are made of, traced through casts to where it is constant.
#pragma once

#include <cstdint>

#include "llvm/ADT/SmallVector.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinTypeInterfaces.h"
#include "mlir/IR/Operation.h"
#include "mlir/IR/Value.h"

namespace tfmbs::ir {

// What a value is a cast of (tensor.cast, memref.cast), or the value itself.
mlir::Value without_casts(mlir::Value value);

// The elements of a constant: of tfmbs.weights its PT-5 bytes, of arith.constant, or of a constant
// memref.global that bufferization made of one. Null where the value is no constant.
mlir::ElementsAttr constant_elements(mlir::Value value);

// The attribute behind the interface.
inline mlir::Attribute as_attribute(mlir::ElementsAttr elements) {
  return mlir::Attribute::getFromOpaquePointer(elements.getAsOpaquePointer());
}

// Raw elements, a splat written out; nothing where a resource is not in the module.
mlir::FailureOr<llvm::SmallVector<char>> element_bytes(mlir::ElementsAttr elements);

// A layer as one can tell it from others: the same for two ops that share weights, name, shape and
// tile mask. `op` is tfmbs.gemv or tfmbs.linear.
mlir::Attribute layer_identity(mlir::Operation* op, mlir::Value weights);

mlir::StringRef layer_name(mlir::DictionaryAttr telemetry);

// N or K of an N x K weight matrix.
inline std::uint64_t weight_size(mlir::Value weights, unsigned dimension) {
  return static_cast<std::uint64_t>(
      mlir::cast<mlir::ShapedType>(weights.getType()).getDimSize(dimension));
}

}  // namespace tfmbs::ir
