#include "LayerConstants.h"
#include "RuntimeModule.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/IR/SymbolTable.h"
#include "tfmbs-mlir/Dialect/TfmbsOps.h"
#include "tfmbs-mlir/Transforms/Passes.h"

namespace tfmbs::ir {

using namespace mlir;  // NOLINT(google-build-using-namespace): MLIR's own convention

#define GEN_PASS_DEF_TFMBSTORUNTIME
#include "tfmbs-mlir/Transforms/Passes.h.inc"

namespace {

// Whether the elements lie one after another from the memref's offset on, and its type says so.
bool is_contiguous(MemRefType type) {
  if (type.getLayout().isIdentity()) return true;
  const auto layout = dyn_cast<StridedLayoutAttr>(type.getLayout());
  if (!layout) return false;
  std::int64_t expected = 1;
  for (std::int64_t d = type.getRank() - 1; d >= 0; --d) {
    if (layout.getStrides()[static_cast<std::size_t>(d)] != expected) return false;
    if (d == 0) break;
    if (type.isDynamicDim(static_cast<unsigned>(d))) return false;
    expected *= type.getDimSize(static_cast<unsigned>(d));
  }
  return true;
}

// A new contiguous buffer of the memref's sizes. Who frees it is buffer deallocation's to decide.
Value allocate_like(OpBuilder& builder, Location location, Value memref) {
  const auto type = cast<MemRefType>(memref.getType());
  SmallVector<Value> sizes;
  for (std::int64_t d = 0; d < type.getRank(); ++d) {
    if (type.isDynamicDim(static_cast<unsigned>(d))) {
      sizes.push_back(memref::DimOp::create(builder, location, memref, d));
    }
  }
  return memref::AllocOp::create(builder, location,
                                 MemRefType::get(type.getShape(), type.getElementType()), sizes);
}

// The call of a layer's function in the place of the op. Copies are linalg's: memref.copy of a
// strided memref would need MLIR's own runtime library.
void call_layer(LinearOp op, func::FuncOp function, Value input, Value bias) {
  OpBuilder builder(op);
  const Location location = op.getLoc();
  Value output = op.getInit();
  const bool copy_back = !is_contiguous(cast<MemRefType>(output.getType()));
  if (copy_back) output = allocate_like(builder, location, output);
  SmallVector<Value> operands{input};
  if (bias) operands.push_back(bias);
  operands.push_back(output);
  const auto call = func::CallOp::create(builder, location, function, operands);
  copy_layer_attributes(op, call);
  if (copy_back) linalg::CopyOp::create(builder, location, output, op.getInit());
  op.erase();
}

Value contiguous(OpBuilder& builder, Location location, Value memref) {
  if (!memref || is_contiguous(cast<MemRefType>(memref.getType()))) return memref;
  const Value copy = allocate_like(builder, location, memref);
  linalg::CopyOp::create(builder, location, memref, copy);
  return copy;
}

LogicalResult check_form(Operation* op) {
  for (const Value operand : op->getOperands()) {
    if (isa<TensorType>(operand.getType())) {
      return op->emitOpError("is on tensors; tfmbs-to-runtime takes memrefs, so bufferize first");
    }
    const auto memref = dyn_cast<MemRefType>(operand.getType());
    if (isa<LinearOp>(op) && (!memref || memref.getMemorySpace())) {
      return op->emitOpError() << "takes ranked memrefs of the default memory space, not "
                               << operand.getType();
    }
  }
  return success();
}

struct TfmbsToRuntime : impl::TfmbsToRuntimeBase<TfmbsToRuntime> {
  using TfmbsToRuntimeBase::TfmbsToRuntimeBase;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    SmallVector<LinearOp> layers;
    const WalkResult walked = module.walk([&](Operation* op) {
      if (!isa<LinearOp, GemvOp, QuantizeOp, DequantizeOp>(op)) return WalkResult::advance();
      if (auto linear = dyn_cast<LinearOp>(op)) layers.push_back(linear);
      if (isa<GemvOp>(op)) {
        op->emitWarning() << "'tfmbs.gemv' of layer '"
                          << layer_name(cast<GemvOp>(op).getTelemetry())
                          << "' stays, and will not run on the fabric: run tfmbs-fuse before "
                             "bufferization, which takes a gemv between a quantize and a "
                             "dequantize that alone read each other";
      }
      return WalkResult(check_form(op));
    });
    if (walked.wasInterrupted()) return signalPassFailure();
    RuntimeModule runtime(module, fabric);
    if (failed(runtime.check())) return signalPassFailure();
    for (const LinearOp layer : layers) {
      if (failed(lower(layer, runtime))) return signalPassFailure();
    }
    runtime.finish();
    module.walk([](WeightsOp weights) {
      if (weights->use_empty()) weights.erase();
    });
  }

  static LogicalResult lower(LinearOp op, RuntimeModule& runtime) {
    OpBuilder builder(op);
    const Value input = contiguous(builder, op.getLoc(), op.getInput());
    const Value bias = contiguous(builder, op.getLoc(), op.getBias());
    // The function sees what is passed: a strided output comes through a buffer.
    auto output = cast<MemRefType>(op.getInit().getType());
    if (!is_contiguous(output)) {
      output = MemRefType::get(output.getShape(), output.getElementType());
    }
    const FailureOr<func::FuncOp> function =
        runtime.layer_function(op, input.getType(), bias ? bias.getType() : Type(), output);
    if (failed(function)) return failure();
    call_layer(op, *function, input, bias);
    return success();
  }
};

}  // namespace
}  // namespace tfmbs::ir
