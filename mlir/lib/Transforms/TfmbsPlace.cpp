#include "tfmbs-mlir/Transforms/Passes.h"

namespace tfmbs::ir {

#define GEN_PASS_DEF_TFMBSPLACE
#include "tfmbs-mlir/Transforms/Passes.h.inc"

namespace {

struct TfmbsPlace : impl::TfmbsPlaceBase<TfmbsPlace> {
  using TfmbsPlaceBase::TfmbsPlaceBase;
  void runOnOperation() override {
    getOperation().emitError() << "not written yet";
    signalPassFailure();
  }
};

}  // namespace
}  // namespace tfmbs::ir
