// The ops.
#pragma once

#include <cstdint>
#include <optional>

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"
#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/Interfaces/DestinationStyleOpInterface.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "tfmbs-mlir/Dialect/TelemetryAttributes.h"
#include "tfmbs-mlir/Dialect/TfmbsDialect.h"

#define GET_OP_CLASSES
#include "tfmbs-mlir/Dialect/TfmbsOps.h.inc"
