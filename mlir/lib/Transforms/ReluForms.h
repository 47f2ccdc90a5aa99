// A ReLU as front ends write it.
#pragma once

#include "mlir/IR/Operation.h"
#include "mlir/IR/Value.h"

namespace tfmbs::ir {

// The op whose one result is the ReLU of `value`, a tensor, where nothing else reads that (but the
// comparison of an arith.select); null where there is none. A ReLU is linalg.generic on each
// element, arith.maximumf, or arith.cmpf and arith.select, that gives the value where it is above
// zero or a NaN, and zero elsewhere. Of a zero's sign forms differ; tfmbs.linear keeps it, as
// torch does.
mlir::Operation* match_relu(mlir::Value value);

}  // namespace tfmbs::ir
