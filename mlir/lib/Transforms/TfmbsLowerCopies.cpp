#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "tfmbs-mlir/Transforms/Passes.h"

namespace tfmbs::ir {

using namespace mlir;  // NOLINT(google-build-using-namespace): MLIR's own convention

#define GEN_PASS_DEF_TFMBSLOWERCOPIES
#include "tfmbs-mlir/Transforms/Passes.h.inc"

namespace {

bool contiguous(Value memref) {
  return cast<MemRefType>(memref.getType()).getLayout().isIdentity();
}

struct TfmbsLowerCopies : impl::TfmbsLowerCopiesBase<TfmbsLowerCopies> {
  using TfmbsLowerCopiesBase::TfmbsLowerCopiesBase;

  void runOnOperation() override {
    getOperation().walk([](memref::CopyOp copy) {
      const Value source = copy.getSource();
      const Value target = copy.getTarget();
      // Unranked ones stay: their loops are known at run time only.
      if (!isa<MemRefType>(source.getType()) || !isa<MemRefType>(target.getType())) return;
      if (contiguous(source) && contiguous(target)) return;  // becomes a memcpy
      OpBuilder builder(copy);
      linalg::CopyOp::create(builder, copy.getLoc(), source, target);
      copy.erase();
    });
  }
};

}  // namespace
}  // namespace tfmbs::ir
