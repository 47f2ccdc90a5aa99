#include "tfmbs-mlir/Transforms/Passes.h"

namespace tfmbs::ir {

#define GEN_PASS_DEF_TFMBSTOLINALG
#include "tfmbs-mlir/Transforms/Passes.h.inc"

namespace {

struct TfmbsToLinalg : impl::TfmbsToLinalgBase<TfmbsToLinalg> {
  using TfmbsToLinalgBase::TfmbsToLinalgBase;
  void runOnOperation() override {
    getOperation().emitError() << "not written yet";
    signalPassFailure();
  }
};

}  // namespace
}  // namespace tfmbs::ir
