#include "tfmbs-mlir/Transforms/Passes.h"

namespace tfmbs::ir {

#define GEN_PASS_DEF_TFMBSFUSE
#include "tfmbs-mlir/Transforms/Passes.h.inc"

namespace {

struct TfmbsFuse : impl::TfmbsFuseBase<TfmbsFuse> {
  using TfmbsFuseBase::TfmbsFuseBase;
  void runOnOperation() override {
    getOperation().emitError() << "not written yet";
    signalPassFailure();
  }
};

}  // namespace
}  // namespace tfmbs::ir
