// One library that mlir-opt loads as a dialect plugin or as a pass plugin; either brings both.
#include "mlir/Tools/Plugins/DialectPlugin.h"
#include "mlir/Tools/Plugins/PassPlugin.h"
#include "tfmbs-mlir/Dialect/TfmbsDialect.h"
#include "tfmbs-mlir/Transforms/Passes.h"
#include "tfmbs/version.hpp"

namespace {

void register_passes() {
  static const bool once = [] {
    tfmbs::ir::registerTfmbsPasses();
    return true;
  }();
  static_cast<void>(once);
}

}  // namespace

extern "C" LLVM_ATTRIBUTE_WEAK mlir::DialectPluginLibraryInfo mlirGetDialectPluginInfo() {
  return {MLIR_PLUGIN_API_VERSION, "tfmbs", LLVM_VERSION_STRING,
          [](mlir::DialectRegistry* registry) {
            registry->insert<tfmbs::ir::TfmbsDialect>();
            register_passes();
          }};
}

extern "C" LLVM_ATTRIBUTE_WEAK mlir::PassPluginLibraryInfo mlirGetPassPluginInfo() {
  return {MLIR_PLUGIN_API_VERSION, "tfmbs", LLVM_VERSION_STRING, register_passes};
}
