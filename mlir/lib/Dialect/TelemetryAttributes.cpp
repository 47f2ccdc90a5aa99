#include "tfmbs-mlir/Dialect/TelemetryAttributes.h"

#include <initializer_list>

#include "mlir/IR/BuiltinTypes.h"

namespace tfmbs::ir {

using namespace mlir;  // NOLINT(google-build-using-namespace): MLIR's own convention

LogicalResult verify_telemetry(DictionaryAttr telemetry,
                               llvm::function_ref<InFlightDiagnostic()> error) {
  const Attribute layer = telemetry.get(kLayer);
  const auto name = dyn_cast_or_null<StringAttr>(layer);
  if (!name || name.getValue().empty()) {
    auto diagnostic = error();
    diagnostic << "telemetry needs `layer`, a string that is not empty, but has ";
    return layer ? diagnostic << layer : diagnostic << "none";
  }
  const Attribute sparsity = telemetry.get(kSparsity);
  const auto value = dyn_cast_or_null<FloatAttr>(sparsity);
  if (!value || !(value.getValueAsDouble() >= 0.0 && value.getValueAsDouble() <= 1.0)) {
    auto diagnostic = error();
    diagnostic << "telemetry of '" << name.getValue()
               << "' needs `sparsity`, a float in 0...1, but has ";
    return sparsity ? diagnostic << sparsity : diagnostic << "none";
  }
  return success();
}

LogicalResult verify_layer_attributes(Operation* op, std::uint64_t tile_mask,
                                      std::optional<std::uint64_t> weight_address,
                                      DictionaryAttr telemetry) {
  if (failed(verify_telemetry(telemetry, [&] { return op->emitOpError(); }))) return failure();
  if (tile_mask == 0) return op->emitOpError("tile_mask is 0; a layer needs a tile");
  if (weight_address && *weight_address % 4 != 0) {
    return op->emitOpError() << "weight_addr is " << *weight_address
                             << "; it must be a multiple of 4 bytes";
  }
  return success();
}

void copy_layer_attributes(Operation* from, Operation* to) {
  for (const llvm::StringLiteral name : {kTileMask, kWeightAddress, kTelemetry}) {
    if (const Attribute attribute = from->getAttr(name)) to->setAttr(name, attribute);
  }
}

}  // namespace tfmbs::ir
