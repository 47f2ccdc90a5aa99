#include "tfmbs-mlir/Dialect/TfmbsDialect.h"

#include "llvm/ADT/TypeSwitch.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "tfmbs-mlir/Dialect/TfmbsDialect.cpp.inc"
#include "tfmbs-mlir/Dialect/TfmbsEnums.cpp.inc"
#include "tfmbs-mlir/Dialect/TfmbsOps.h"

#define GET_TYPEDEF_CLASSES
#include "tfmbs-mlir/Dialect/TfmbsTypes.cpp.inc"

namespace tfmbs::ir {

void TfmbsDialect::initialize() {
  addTypes<
#define GET_TYPEDEF_LIST
#include "tfmbs-mlir/Dialect/TfmbsTypes.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "tfmbs-mlir/Dialect/TfmbsOps.cpp.inc"
      >();
}

}  // namespace tfmbs::ir
