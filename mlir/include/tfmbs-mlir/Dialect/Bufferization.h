// How the ops go from tensors to memrefs.
#pragma once

#include "mlir/IR/DialectRegistry.h"

namespace tfmbs::ir {

// Gives the dialect's ops BufferizableOpInterface, for `one-shot-bufferize`.
void register_bufferization(mlir::DialectRegistry& registry);

}  // namespace tfmbs::ir
