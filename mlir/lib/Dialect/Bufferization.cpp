#include "tfmbs-mlir/Dialect/Bufferization.h"

#include "mlir/Dialect/Bufferization/IR/BufferizableOpInterface.h"
#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/Bufferization/IR/DstBufferizableOpInterfaceImpl.h"
#include "tfmbs-mlir/Dialect/TfmbsOps.h"

namespace tfmbs::ir {

using namespace mlir;                 // NOLINT(google-build-using-namespace): MLIR's own convention
using namespace mlir::bufferization;  // NOLINT(google-build-using-namespace): as above

namespace {

// The ops with destinations: the same op on the operands' buffers.
template <typename Op>
struct DestinationModel : DstBufferizableOpInterfaceExternalModel<DestinationModel<Op>, Op> {
  // Destinations are overwritten, never read.
  bool bufferizesToMemoryRead(Operation* op, OpOperand& operand, const AnalysisState&) const {
    return !cast<DestinationStyleOpInterface>(op).isDpsInit(&operand);
  }

  LogicalResult bufferize(Operation* op, RewriterBase& rewriter,
                          const BufferizationOptions& options, BufferizationState& state) const {
    SmallVector<Value> operands;
    for (const Value operand : op->getOperands()) {
      if (!isa<TensorType>(operand.getType())) {
        operands.push_back(operand);
        continue;
      }
      const FailureOr<Value> buffer = getBuffer(rewriter, operand, options, state);
      if (failed(buffer)) return failure();
      operands.push_back(*buffer);
    }
    SmallVector<Value> results;
    for (OpOperand& init : cast<DestinationStyleOpInterface>(op).getDpsInitsMutable()) {
      results.push_back(operands[init.getOperandNumber()]);
    }
    const OperationState replacement(op->getLoc(), op->getName(), operands, TypeRange{},
                                     op->getAttrs());
    rewriter.create(replacement);
    if (op->getNumResults() == 0) {
      rewriter.eraseOp(op);
    } else {
      replaceOpWithBufferizedValues(rewriter, op, results);
    }
    return success();
  }
};

// Weights are constant memory: a write to them makes a copy first.
struct WeightsModel : BufferizableOpInterface::ExternalModel<WeightsModel, WeightsOp> {
  bool isWritable(Operation* /*op*/, Value /*value*/, const AnalysisState&) const { return false; }

  // A tensor that no other op's result is, and nothing was allocated for it.
  bool bufferizesToAllocation(Operation* /*op*/, Value /*value*/) const { return false; }

  LogicalResult bufferize(Operation* op, RewriterBase& rewriter,
                          const BufferizationOptions& options, BufferizationState&) const {
    auto weights = cast<WeightsOp>(op);
    const auto type = dyn_cast<TensorType>(weights.getType());
    if (!type) return success();
    const std::optional<Attribute> space = options.defaultMemorySpaceFn(type);
    if (!space) return op->emitOpError("has no memory space to go to");
    replaceOpWithNewBufferizedOp<WeightsOp>(
        rewriter, op, getMemRefTypeWithStaticIdentityLayout(type, *space), weights.getValue());
    return success();
  }
};

}  // namespace

void register_bufferization(DialectRegistry& registry) {
  registry.addExtension(+[](MLIRContext* context, TfmbsDialect*) {
    WeightsOp::attachInterface<WeightsModel>(*context);
    QuantizeOp::attachInterface<DestinationModel<QuantizeOp>>(*context);
    GemvOp::attachInterface<DestinationModel<GemvOp>>(*context);
    DequantizeOp::attachInterface<DestinationModel<DequantizeOp>>(*context);
    LinearOp::attachInterface<DestinationModel<LinearOp>>(*context);
  });
}

}  // namespace tfmbs::ir
