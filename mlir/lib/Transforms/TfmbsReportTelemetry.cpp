#include "tfmbs-mlir/Transforms/Passes.h"

namespace tfmbs::ir {

#define GEN_PASS_DEF_TFMBSREPORTTELEMETRY
#include "tfmbs-mlir/Transforms/Passes.h.inc"

namespace {

struct TfmbsReportTelemetry : impl::TfmbsReportTelemetryBase<TfmbsReportTelemetry> {
  using TfmbsReportTelemetryBase::TfmbsReportTelemetryBase;
  void runOnOperation() override {
    getOperation().emitError() << "not written yet";
    signalPassFailure();
  }
};

}  // namespace
}  // namespace tfmbs::ir
