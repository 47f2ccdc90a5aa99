// The dialect, its types and its enumerations.
#pragma once

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "tfmbs-mlir/Dialect/TfmbsDialect.h.inc"
#include "tfmbs-mlir/Dialect/TfmbsEnums.h.inc"

#define GET_TYPEDEF_CLASSES
#include "tfmbs-mlir/Dialect/TfmbsTypes.h.inc"
