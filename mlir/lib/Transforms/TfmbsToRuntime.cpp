#include "tfmbs-mlir/Transforms/Passes.h"

namespace tfmbs::ir {

#define GEN_PASS_DEF_TFMBSTORUNTIME
#include "tfmbs-mlir/Transforms/Passes.h.inc"

namespace {

struct TfmbsToRuntime : impl::TfmbsToRuntimeBase<TfmbsToRuntime> {
  using TfmbsToRuntimeBase::TfmbsToRuntimeBase;
  void runOnOperation() override {
    getOperation().emitError() << "not written yet";
    signalPassFailure();
  }
};

}  // namespace
}  // namespace tfmbs::ir
