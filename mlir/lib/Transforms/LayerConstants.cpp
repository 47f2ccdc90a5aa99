#include "LayerConstants.h"

#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/AsmState.h"
#include "mlir/IR/DialectResourceBlobManager.h"
#include "mlir/IR/Matchers.h"
#include "mlir/IR/SymbolTable.h"
#include "tfmbs-mlir/Dialect/TelemetryAttributes.h"
#include "tfmbs-mlir/Dialect/TfmbsOps.h"

namespace tfmbs::ir {

using namespace mlir;  // NOLINT(google-build-using-namespace): MLIR's own convention

Value without_casts(Value value) {
  while (Operation* op = value.getDefiningOp()) {
    if (!isa<tensor::CastOp, memref::CastOp>(op)) break;
    value = op->getOperand(0);
  }
  return value;
}

ElementsAttr constant_elements(Value value) {
  Operation* op = without_casts(value).getDefiningOp();
  if (op == nullptr) return {};
  if (auto weights = dyn_cast<WeightsOp>(op)) return weights.getValue();
  if (auto get_global = dyn_cast<memref::GetGlobalOp>(op)) {
    auto global =
        SymbolTable::lookupNearestSymbolFrom<memref::GlobalOp>(op, get_global.getNameAttr());
    if (!global || !global.getConstant()) return {};
    return dyn_cast_or_null<ElementsAttr>(global.getConstantInitValue());
  }
  ElementsAttr elements;
  if (matchPattern(op, m_Constant(&elements))) return elements;
  return {};
}

FailureOr<SmallVector<char>> element_bytes(ElementsAttr elements) {
  if (const auto resource = dyn_cast<DenseResourceElementsAttr>(elements)) {
    const AsmResourceBlob* blob = resource.getRawHandle().getBlob();
    if (blob == nullptr) return failure();
    return SmallVector<char>(blob->getData());
  }
  const auto dense = dyn_cast<DenseElementsAttr>(elements);
  if (!dense) return failure();
  const ArrayRef<char> raw = dense.getRawData();
  SmallVector<char> bytes(raw);
  if (dense.isSplat()) {
    for (std::int64_t i = 1; i < dense.getNumElements(); ++i) bytes.append(raw.begin(), raw.end());
  }
  return bytes;
}

Attribute layer_identity(Operation* op, Value weights) {
  MLIRContext* context = op->getContext();
  const auto type = cast<ShapedType>(weights.getType());
  const ElementsAttr elements = constant_elements(weights);
  // Weights that are no constant are told apart by the value.
  const auto value = reinterpret_cast<std::uintptr_t>(without_casts(weights).getAsOpaquePointer());
  const Attribute identity =
      elements ? as_attribute(elements)
               : IntegerAttr::get(IntegerType::get(context, 64), static_cast<std::int64_t>(value));
  const auto telemetry = op->getAttrOfType<DictionaryAttr>(kTelemetry);
  return ArrayAttr::get(
      context, {StringAttr::get(context, layer_name(telemetry)), identity,
                TypeAttr::get(RankedTensorType::get(type.getShape(), type.getElementType())),
                op->getAttr(kTileMask)});
}

StringRef layer_name(DictionaryAttr telemetry) {
  return cast<StringAttr>(telemetry.get(kLayer)).getValue();
}

}  // namespace tfmbs::ir
