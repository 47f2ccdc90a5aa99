// The passes, and how a tool gets to know them.
#pragma once

#include <memory>
#include <string>

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"
#include "tfmbs-mlir/Dialect/TfmbsDialect.h"

namespace tfmbs::ir {

#define GEN_PASS_DECL
#include "tfmbs-mlir/Transforms/Passes.h.inc"
#define GEN_PASS_REGISTRATION
#include "tfmbs-mlir/Transforms/Passes.h.inc"

}  // namespace tfmbs::ir
