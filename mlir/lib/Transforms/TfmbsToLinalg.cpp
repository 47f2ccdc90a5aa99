#include "LinalgLowering.h"
#include "WeightConstants.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/TypeSwitch.h"
#include "mlir/IR/AttrTypeSubElements.h"
#include "tfmbs-mlir/Dialect/TfmbsOps.h"
#include "tfmbs-mlir/Transforms/Passes.h"

namespace tfmbs::ir {

#define GEN_PASS_DEF_TFMBSTOLINALG
#include "tfmbs-mlir/Transforms/Passes.h.inc"

using namespace mlir;  // NOLINT(google-build-using-namespace): MLIR's own convention

namespace {

ShapedType shaped(Value value) { return cast<ShapedType>(value.getType()); }
bool is_tensor(Value value) { return isa<TensorType>(value.getType()); }

// Makes the destinations of what lies between an op's input and its output. Memrefs are freed by
// MLIR's buffer deallocation, as those that bufferization makes.
class Temporaries {
 public:
  Temporaries(OpBuilder& builder, Location loc, bool tensors)
      : builder_(builder), loc_(loc), tensors_(tensors) {}

  Value make(ArrayRef<OpFoldResult> sizes, Type element) {
    if (tensors_) return tensor::EmptyOp::create(builder_, loc_, sizes, element);
    SmallVector<std::int64_t> shape;
    SmallVector<Value> dynamic;
    dispatchIndexOpFoldResults(sizes, dynamic, shape);
    return memref::AllocOp::create(builder_, loc_, MemRefType::get(shape, element), dynamic);
  }

  // Rows of a matrix, as a number or as the op that asks.
  OpFoldResult rows_of(Value matrix) {
    return tensors_ ? tensor::getMixedSize(builder_, loc_, matrix, 0)
                    : memref::getMixedSize(builder_, loc_, matrix, 0);
  }

 private:
  OpBuilder& builder_;
  Location loc_;
  bool tensors_;
};

class Lowering {
 public:
  explicit Lowering(ModuleOp module) : module_(module), builder_(module.getContext()) {}

  LogicalResult run() {
    SmallVector<Operation*> ops;
    module_.walk([&](Operation* op) {
      if (isa<QuantizeOp, GemvOp, DequantizeOp, LinearOp>(op)) ops.push_back(op);
    });
    for (Operation* op : ops) {
      builder_.setInsertionPoint(op);
      const LogicalResult lowered =
          llvm::TypeSwitch<Operation*, LogicalResult>(op)
              .Case<QuantizeOp, GemvOp, DequantizeOp, LinearOp>([&](auto it) { return lower(it); });
      if (failed(lowered)) return failure();
    }
    module_.walk([](WeightsOp weights) {
      if (weights->use_empty()) weights.erase();
    });
    return verify_nothing_left();
  }

 private:
  LogicalResult lower(QuantizeOp op) {
    const Quantized quantized = build_quantize(builder_, op.getLoc(), op.getInput(), op.getValues(),
                                               op.getScales(), op.getActivation());
    return replace(op, {quantized.values, quantized.scales});
  }

  LogicalResult lower(GemvOp op) {
    Temporaries temporaries(builder_, op.getLoc(), is_tensor(op.getInput()));
    const FailureOr<Value> weights = matmul_weights(op, op.getWeights(), temporaries);
    if (failed(weights)) return failure();
    return replace(op, {build_matmul(builder_, op, op.getInput(), *weights, op.getInit())});
  }

  LogicalResult lower(DequantizeOp op) {
    return replace(op, {build_dequantize(builder_, op.getLoc(), op.getSums(), op.getRowScales(),
                                         op.getOutputScales(), op.getBias(), op.getInit(),
                                         /*relu=*/false)});
  }

  LogicalResult lower(LinearOp op) {
    const Location loc = op.getLoc();
    Temporaries temporaries(builder_, loc, is_tensor(op.getInput()));
    const FailureOr<Value> weights = matmul_weights(op, op.getWeights(), temporaries);
    if (failed(weights)) return failure();
    const ShapedType matrix = shaped(op.getWeights());
    const OpFoldResult outputs = builder_.getIndexAttr(matrix.getDimSize(0));
    const OpFoldResult depth = builder_.getIndexAttr(matrix.getDimSize(1));
    const OpFoldResult rows = temporaries.rows_of(op.getInput());
    const Value values = temporaries.make({rows, depth}, builder_.getI8Type());
    const Value scales = temporaries.make({rows}, shaped(op.getOutputScales()).getElementType());
    const Value init = temporaries.make({rows, outputs}, builder_.getI32Type());
    const Quantized quantized =
        build_quantize(builder_, loc, op.getInput(), values, scales, op.getActivation());
    const Value sums = build_matmul(builder_, op, quantized.values, *weights, init);
    return replace(op,
                   {build_dequantize(builder_, loc, sums, quantized.scales, op.getOutputScales(),
                                     op.getBias(), op.getInit(), op.getRelu())});
  }

  // The weights as K x N of i8.
  FailureOr<Value> matmul_weights(Operation* op, Value weights, Temporaries& temporaries) {
    const ShapedType type = shaped(weights);
    if (!isa<TritType>(type.getElementType())) {
      const Location loc = op->getLoc();
      const Value destination = temporaries.make(
          {builder_.getIndexAttr(type.getDimSize(1)), builder_.getIndexAttr(type.getDimSize(0))},
          type.getElementType());
      const auto transpose =
          linalg::TransposeOp::create(builder_, loc, weights, destination, ArrayRef<int64_t>{1, 0});
      return transpose->getNumResults() == 0 ? destination : transpose->getResult(0);
    }
    auto constant = weights.getDefiningOp<WeightsOp>();
    if (!constant) {
      return op->emitOpError()
             << "multiplies by packed weights that do not come from a tfmbs.weights: what they "
                "hold "
                "has to be known here. Weights that a program computes are a matrix of i8";
    }
    const auto [entry, is_new] = constants_.try_emplace(constant);
    if (is_new) entry->second = build_weight_constant(builder_, constant, symbols_);
    return entry->second;
  }

  static LogicalResult replace(Operation* op, ArrayRef<Value> values) {
    if (op->getNumResults() != 0) op->replaceAllUsesWith(values);
    op->erase();
    return success();
  }

  // Every op and every type of the dialect that stayed gets a diagnostic.
  LogicalResult verify_nothing_left() {
    AttrTypeWalker has_trits;
    has_trits.addWalk([](TritType) { return WalkResult::interrupt(); });
    const auto holds_trits = [&](Type type) { return has_trits.walk(type).wasInterrupted(); };
    bool left = false;
    module_.walk([&](Operation* op) {
      if (auto weights = dyn_cast<WeightsOp>(op)) {
        left = true;
        InFlightDiagnostic diagnostic =
            weights.emitOpError("is read by what cannot read packed weights");
        for (Operation* user : weights->getUsers()) {
          diagnostic.attachNote(user->getLoc()) << "read here, by " << user->getName();
        }
        return;
      }
      const bool in_values = llvm::any_of(op->getOperandTypes(), holds_trits) ||
                             llvm::any_of(op->getResultTypes(), holds_trits) ||
                             llvm::any_of(op->getRegions(), [&](Region& region) {
                               return llvm::any_of(region, [&](Block& block) {
                                 return llvm::any_of(block.getArgumentTypes(), holds_trits);
                               });
                             });
      if (in_values || has_trits.walk(op->getAttrDictionary()).wasInterrupted()) {
        left = true;
        op->emitOpError(
            "has a value or an attribute of !tfmbs.trit, which linalg does not have; "
            "only tfmbs.gemv and tfmbs.linear read packed weights");
      }
    });
    return failure(left);
  }

  ModuleOp module_;
  OpBuilder builder_;
  SymbolTableCollection symbols_;
  llvm::DenseMap<Operation*, Value> constants_;  // of each tfmbs.weights that is read
};

struct TfmbsToLinalg : impl::TfmbsToLinalgBase<TfmbsToLinalg> {
  using TfmbsToLinalgBase::TfmbsToLinalgBase;
  void runOnOperation() override {
    if (failed(Lowering(getOperation()).run())) signalPassFailure();
  }
};

}  // namespace
}  // namespace tfmbs::ir
