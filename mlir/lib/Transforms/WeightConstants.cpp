#include "WeightConstants.h"

#include <algorithm>
#include <string>

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/IR/AsmState.h"
#include "mlir/IR/DialectResourceBlobManager.h"

namespace tfmbs::ir {

using namespace mlir;  // NOLINT(google-build-using-namespace): MLIR's own convention

namespace {

// Up to here a constant stands in the text as numbers; above it is a resource, which MLIR neither
// compares by content nor folds.
constexpr std::size_t kMaxInlineElements = 64;
constexpr std::size_t kAlignment = 64;  // bytes, a cache line

// N x K to K x N, in squares that stay in the cache.
void transpose(ArrayRef<std::int8_t> from, std::size_t outputs, std::size_t depth,
               MutableArrayRef<char> to) {
  constexpr std::size_t kSquare = 64;
  for (std::size_t n0 = 0; n0 < outputs; n0 += kSquare) {
    for (std::size_t k0 = 0; k0 < depth; k0 += kSquare) {
      for (std::size_t k = k0; k < std::min(k0 + kSquare, depth); ++k) {
        for (std::size_t n = n0; n < std::min(n0 + kSquare, outputs); ++n) {
          to[k * outputs + n] = static_cast<char>(from[n * depth + k]);
        }
      }
    }
  }
}

std::string resource_name(WeightsOp weights) {
  const auto resource = dyn_cast<DenseResourceElementsAttr>(weights.getValue());
  return resource ? resource.getRawHandle().getKey().str() + "_i8" : "tfmbs_weights";
}

ElementsAttr transposed_trits(OpBuilder& builder, WeightsOp weights) {
  const auto matrix = cast<ShapedType>(weights.getType());
  const std::int64_t outputs = matrix.getDimSize(0);
  const std::int64_t depth = matrix.getDimSize(1);
  const auto type = RankedTensorType::get({depth, outputs}, builder.getI8Type());
  const SmallVector<std::int8_t> trits = weights.getTrits();
  AsmResourceBlob blob = HeapAsmResourceBlob::allocate(trits.size(), kAlignment);
  transpose(trits, static_cast<std::size_t>(outputs), static_cast<std::size_t>(depth),
            blob.getMutableData());
  if (trits.size() > kMaxInlineElements) {
    return cast<ElementsAttr>(
        DenseI8ResourceElementsAttr::get(type, resource_name(weights), std::move(blob)));
  }
  return DenseElementsAttr::getFromRawBuffer(type, blob.getData());
}

}  // namespace

Value build_weight_constant(OpBuilder& builder, WeightsOp weights, SymbolTableCollection& symbols) {
  const OpBuilder::InsertionGuard guard(builder);
  builder.setInsertionPoint(weights);
  const Location loc = weights.getLoc();
  const ElementsAttr value = transposed_trits(builder, weights);
  const auto type = cast<RankedTensorType>(value.getType());
  const auto memref_type = dyn_cast<MemRefType>(weights.getType());
  if (!memref_type) return arith::ConstantOp::create(builder, loc, type, value);

  Operation* home = SymbolTable::getNearestSymbolTable(weights);
  const auto global_type =
      MemRefType::get(type.getShape(), type.getElementType(), MemRefLayoutAttrInterface(),
                      memref_type.getMemorySpace());
  builder.setInsertionPointToStart(&home->getRegion(0).front());
  auto global = memref::GlobalOp::create(builder, loc, "__tfmbs_weights",
                                         builder.getStringAttr("private"), global_type, value,
                                         /*constant=*/true, builder.getI64IntegerAttr(kAlignment));
  global->remove();  // the symbol table inserts it, under a name that is free
  symbols.getSymbolTable(home).insert(global, home->getRegion(0).front().begin());
  builder.setInsertionPoint(weights);
  return memref::GetGlobalOp::create(builder, loc, global_type, global.getSymName());
}

}  // namespace tfmbs::ir
