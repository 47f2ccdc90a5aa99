#include "ReluForms.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Matchers.h"
#include "mlir/IR/TypeUtilities.h"

namespace tfmbs::ir {

using namespace mlir;  // NOLINT(google-build-using-namespace): MLIR's own convention

namespace {

using Predicate = llvm::function_ref<bool(Value)>;

// A zero, as an element or all elements of a tensor.
bool is_zero(Value value) {
  Operation* op = value.getDefiningOp();
  if (op == nullptr) return false;
  if (auto fill = dyn_cast<linalg::FillOp>(op)) return is_zero(fill.getInputs().front());
  if (auto splat = dyn_cast<tensor::SplatOp>(op)) return is_zero(splat.getInput());
  return matchPattern(value, m_AnyZeroFloat());
}

// Is `result` the greater of x and zero, with a NaN of x kept? arith.maxnumf drops it.
bool is_relu(Value result, Predicate is_x, Predicate is_null) {
  const auto pair = [&](Value a, Value b) { return is_x(a) && is_null(b); };
  if (auto maximum = result.getDefiningOp<arith::MaximumFOp>()) {
    return pair(maximum.getLhs(), maximum.getRhs()) || pair(maximum.getRhs(), maximum.getLhs());
  }
  auto select = result.getDefiningOp<arith::SelectOp>();
  if (!select) return false;
  auto compare = select.getCondition().getDefiningOp<arith::CmpFOp>();
  if (!compare) return false;
  using enum arith::CmpFPredicate;
  arith::CmpFPredicate predicate = compare.getPredicate();
  if (pair(compare.getRhs(), compare.getLhs())) {
    switch (predicate) {  // 0 < x is x > 0
      case OLT:
        predicate = OGT;
        break;
      case OLE:
        predicate = OGE;
        break;
      case OGT:
        predicate = OLT;
        break;
      case OGE:
        predicate = OLE;
        break;
      case ULT:
        predicate = UGT;
        break;
      case ULE:
        predicate = UGE;
        break;
      default:
        return false;  // the others are no ReLU, or let a NaN fall
    }
  } else if (!pair(compare.getLhs(), compare.getRhs())) {
    return false;
  }
  if (pair(select.getTrueValue(), select.getFalseValue())) {
    return predicate == UGT || predicate == UGE;
  }
  if (pair(select.getFalseValue(), select.getTrueValue())) {
    return predicate == OLT || predicate == OLE;
  }
  return false;
}

Operation* match_generic(linalg::GenericOp generic, Value value) {
  if (generic->getNumResults() != 1 || !generic.hasPureTensorSemantics() ||
      generic.getNumParallelLoops() != generic.getNumLoops() ||
      getElementTypeOrSelf(generic->getResult(0)) != getElementTypeOrSelf(value) ||
      !generic.getMatchingIndexingMap(generic.getDpsInitOperand(0)).isIdentity()) {
    return nullptr;
  }
  const auto operand_of = [&](Value element) -> OpOperand* {
    const auto argument = dyn_cast<BlockArgument>(element);
    if (!argument || argument.getOwner() != generic.getBody()) return nullptr;
    return &generic->getOpOperand(argument.getArgNumber());
  };
  // Arithmetic of 16-bit floats may be done in f32, which changes neither side of a comparison; the
  // result comes back exactly, since its type is x's.
  const auto narrow = [](Value element) {
    auto extend = element.getDefiningOp<arith::ExtFOp>();
    return extend ? extend.getIn() : element;
  };
  const auto is_x = [&](Value element) {
    OpOperand* operand = operand_of(narrow(element));
    return operand != nullptr && operand->get() == value &&
           generic.getMatchingIndexingMap(operand).isIdentity();
  };
  const auto is_null = [&](Value element) {
    element = narrow(element);
    const OpOperand* operand = operand_of(element);
    return is_zero(operand != nullptr ? operand->get() : element);
  };
  Value result = generic.getBody()->getTerminator()->getOperand(0);
  if (auto truncate = result.getDefiningOp<arith::TruncFOp>()) result = truncate.getIn();
  if (!is_relu(result, is_x, is_null)) return nullptr;
  return generic;
}

}  // namespace

Operation* match_relu(Value value) {
  if (value.use_empty()) return nullptr;
  SmallVector<Operation*> users(value.getUsers());
  llvm::sort(users);
  users.erase(llvm::unique(users), users.end());
  Operation* last = users.front();
  for (Operation* user : users) {
    if (!isa<arith::CmpFOp>(user)) last = user;
  }
  if (last->getBlock() != value.getParentBlock()) return nullptr;
  if (auto generic = dyn_cast<linalg::GenericOp>(last)) {
    return users.size() == 1 ? match_generic(generic, value) : nullptr;
  }
  if (last->getNumResults() != 1 || last->getResult(0).getType() != value.getType() ||
      !is_relu(last->getResult(0), [&](Value x) { return x == value; }, is_zero)) {
    return nullptr;
  }
  if (isa<arith::MaximumFOp>(last)) {
    return users.size() == 1 ? last : nullptr;
  }
  Operation* condition = cast<arith::SelectOp>(last).getCondition().getDefiningOp();
  const bool alone = condition->hasOneUse() && llvm::all_of(users, [&](Operation* user) {
                       return user == last || user == condition;
                     });
  return alone ? last : nullptr;
}

}  // namespace tfmbs::ir
