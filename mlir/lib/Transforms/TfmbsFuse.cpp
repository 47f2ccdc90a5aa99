#include "LayerConstants.h"
#include "ReluForms.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SetVector.h"
#include "mlir/IR/Builders.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "tfmbs-mlir/Dialect/TfmbsOps.h"
#include "tfmbs-mlir/Transforms/Passes.h"

namespace tfmbs::ir {

using namespace mlir;  // NOLINT(google-build-using-namespace): MLIR's own convention

#define GEN_PASS_DEF_TFMBSFUSE
#include "tfmbs-mlir/Transforms/Passes.h.inc"

namespace {

struct Chain {
  QuantizeOp quantize;
  GemvOp gemv;
  DequantizeOp dequantize;
  Operation* relu{nullptr};
};

// Whether nobody reads the value but, perhaps through casts, `reader`.
bool only_reader(Value value, Operation* reader) {
  return llvm::all_of(value.getUsers(), [&](Operation* user) {
    return user == reader || (isa<tensor::CastOp>(user) && only_reader(user->getResult(0), reader));
  });
}

// The chain that ends in an op: each op reads the one before it, and what it reads from elsewhere
// the fused op reads too. Numbers stay as they are, but for a ReLU's zeros, whose sign is torch's
// then.
std::optional<Chain> match_chain(DequantizeOp dequantize) {
  if (!dequantize.getResult()) return std::nullopt;  // on memrefs, order is not in the values
  Chain chain;
  chain.dequantize = dequantize;
  chain.gemv = without_casts(dequantize.getSums()).getDefiningOp<GemvOp>();
  if (!chain.gemv || !only_reader(chain.gemv.getResult(), dequantize)) return std::nullopt;
  const Value values = without_casts(chain.gemv.getInput());
  chain.quantize = values.getDefiningOp<QuantizeOp>();
  if (!chain.quantize || values != chain.quantize.getQuantized() ||
      without_casts(dequantize.getRowScales()) != chain.quantize.getRowScales()) {
    return std::nullopt;
  }
  // Another region may run more often, or not at all.
  const Block* block = dequantize->getBlock();
  if (chain.gemv->getBlock() != block || chain.quantize->getBlock() != block) return std::nullopt;
  chain.relu = match_relu(dequantize.getResult());
  return chain;
}

// Adds to `joined` what `op`, called `name` where its telemetry names no other layer, knows.
void join(Operation* op, StringRef name, StringRef layer, NamedAttrList& joined,
          SmallVectorImpl<Attribute>& fused) {
  MLIRContext* context = op->getContext();
  const auto telemetry = op->getAttrOfType<DictionaryAttr>(kTelemetry);
  if (!telemetry) {
    fused.push_back(StringAttr::get(context, name));
    return;
  }
  if (const auto own = dyn_cast_or_null<StringAttr>(telemetry.get(kLayer));
      own && own.getValue() != layer) {
    name = own.getValue();
  }
  fused.push_back(StringAttr::get(context, name));
  for (const NamedAttribute entry : telemetry) {
    const StringRef key = entry.getName().getValue();
    if (key == kLayer) continue;
    if (const auto names = dyn_cast<ArrayAttr>(entry.getValue()); key == kFused && names) {
      llvm::append_range(fused, names);
      continue;
    }
    const Attribute present = joined.get(key);
    if (!present) {
      joined.set(key, entry.getValue());
    } else if (present != entry.getValue()) {
      std::string other = (name + "." + key).str();
      while (joined.get(other) && joined.get(other) != entry.getValue()) other += '\'';
      joined.set(other, entry.getValue());
    }
  }
}

DictionaryAttr joined_telemetry(Chain& chain) {
  const DictionaryAttr own = chain.gemv.getTelemetry();
  NamedAttrList joined(own);
  SmallVector<Attribute> fused;
  if (const auto names = dyn_cast_or_null<ArrayAttr>(own.get(kFused))) {
    llvm::append_range(fused, names);
  }
  join(chain.quantize, "quantize", layer_name(own), joined, fused);
  join(chain.dequantize, "dequantize", layer_name(own), joined, fused);
  if (chain.relu != nullptr) join(chain.relu, "relu", layer_name(own), joined, fused);
  joined.set(kFused, ArrayAttr::get(own.getContext(), fused));
  return joined.getDictionary(own.getContext());
}

// Erases those of the ops that nobody needs, and what only they have read.
void erase_dead(ArrayRef<Operation*> ops) {
  llvm::SetVector<Operation*> work(ops.begin(), ops.end());
  while (!work.empty()) {
    Operation* op = work.pop_back_val();
    if (!isOpTriviallyDead(op)) continue;
    for (const Value operand : op->getOperands()) {
      if (Operation* producer = operand.getDefiningOp()) work.insert(producer);
    }
    op->erase();
  }
}

void fuse(Chain& chain) {
  GemvOp gemv = chain.gemv;
  DequantizeOp dequantize = chain.dequantize;
  SmallVector<Location> locations{chain.quantize.getLoc(), gemv.getLoc(), dequantize.getLoc()};
  if (chain.relu != nullptr) locations.push_back(chain.relu->getLoc());
  OpBuilder builder(dequantize);
  auto linear = LinearOp::create(
      builder, builder.getFusedLoc(locations), dequantize.getResult().getType(),
      chain.quantize.getInput(), gemv.getWeights(), dequantize.getOutputScales(),
      dequantize.getBias(), dequantize.getInit(), chain.quantize.getActivationAttr(),
      chain.relu != nullptr ? builder.getUnitAttr() : UnitAttr(), gemv.getTileMaskAttr(),
      gemv.getWeightAddrAttr(), joined_telemetry(chain));
  linear->setDiscardableAttrs(gemv->getDiscardableAttrDictionary());
  if (chain.relu != nullptr) {
    Value result = linear.getResult();
    const Value replaced = chain.relu->getResult(0);
    if (replaced.getType() != result.getType()) {
      result = tensor::CastOp::create(builder, linear.getLoc(), replaced.getType(), result);
    }
    Value(replaced).replaceAllUsesWith(result);
    erase_dead(chain.relu);
  } else {
    dequantize.getResult().replaceAllUsesWith(linear.getResult());
    erase_dead(dequantize.getOperation());
  }
}

struct TfmbsFuse : impl::TfmbsFuseBase<TfmbsFuse> {
  using TfmbsFuseBase::TfmbsFuseBase;

  void runOnOperation() override {
    SmallVector<DequantizeOp> ends;
    getOperation().walk([&](DequantizeOp op) { ends.push_back(op); });
    for (const DequantizeOp end : ends) {
      if (auto chain = match_chain(end)) fuse(*chain);
    }
  }
};

}  // namespace
}  // namespace tfmbs::ir
