// One library for mlir-opt. As a dialect plugin it brings the dialect and the passes; as a pass
// plugin the passes alone, for MLIR hands no dialect registry to those.
#include "mlir/Tools/Plugins/DialectPlugin.h"
#include "mlir/Tools/Plugins/PassPlugin.h"
#include "tfmbs-mlir/Dialect/Bufferization.h"
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
            tfmbs::ir::register_bufferization(*registry);
            register_passes();
          }};
}

extern "C" LLVM_ATTRIBUTE_WEAK mlir::PassPluginLibraryInfo mlirGetPassPluginInfo() {
  return {MLIR_PLUGIN_API_VERSION, "tfmbs", LLVM_VERSION_STRING, register_passes};
}
