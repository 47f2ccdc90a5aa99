#include "tfmbs-mlir/Dialect/TfmbsOps.h"

#include <string>

#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectResourceBlobManager.h"
#include "mlir/IR/OpImplementation.h"
#include "tfmbs/format/limits.hpp"
#include "tfmbs/format/pt5.hpp"

namespace tfmbs::ir {

using namespace mlir;  // NOLINT(google-build-using-namespace): MLIR's own convention

namespace {

// Far above what memory holds, and small enough to count with.
constexpr std::int64_t kMaxTrits = std::int64_t{1} << 48;

ShapedType shaped(Value value) { return cast<ShapedType>(value.getType()); }

bool same_size(std::int64_t a, std::int64_t b) {
  return a == b || ShapedType::isDynamic(a) || ShapedType::isDynamic(b);
}

std::string size_text(std::int64_t size) {
  return ShapedType::isDynamic(size) ? "?" : std::to_string(size);
}

// Sizes that have to agree, by what they are called.
LogicalResult verify_same(Operation* op, StringRef a_name, std::int64_t a, StringRef b_name,
                          std::int64_t b) {
  if (same_size(a, b)) return success();
  return op->emitOpError() << a_name << " is " << size_text(a) << ", but " << b_name << " is "
                           << size_text(b);
}

// All operands are tensors and there is a result for each destination, or all are memrefs and there
// are none. (What results are of which types is DestinationStyleOpInterface's to check.)
LogicalResult verify_form(Operation* op, OperandRange operands, unsigned destinations) {
  bool tensors = false;
  bool memrefs = false;
  for (const Value operand : operands) {
    tensors |= isa<TensorType>(operand.getType());
    memrefs |= isa<BaseMemRefType>(operand.getType());
  }
  if (tensors && memrefs) return op->emitOpError("mixes tensors and memrefs");
  const unsigned expected = tensors ? destinations : 0;
  if (op->getNumResults() == expected) return success();
  return op->emitOpError() << "on " << (tensors ? "tensors" : "memrefs") << " has " << expected
                           << " results, not " << op->getNumResults();
}

// Of a matrix of static sizes.
LogicalResult verify_trit_count(Operation* op, StringRef what, ShapedType matrix) {
  const std::int64_t depth = matrix.getDimSize(1);
  if (depth == 0 || matrix.getDimSize(0) <= kMaxTrits / depth) return success();
  return op->emitOpError() << what << matrix << "; at most " << kMaxTrits << " trits are a matrix";
}

// Weights are N x K of static sizes, small enough for a layer.
LogicalResult verify_weights(Operation* op, ShapedType weights) {
  if (!weights.hasStaticShape()) {
    return op->emitOpError() << "weights need static sizes, but are " << weights;
  }
  const auto outputs = static_cast<std::uint64_t>(weights.getDimSize(0));
  const auto depth = static_cast<std::uint64_t>(weights.getDimSize(1));
  if (depth > kMaxDepth) {
    return op->emitOpError() << "depth is " << depth << "; at most " << kMaxDepth
                             << " keeps i32 sums exact";
  }
  if (outputs > kMaxOutputs) {
    return op->emitOpError() << "outputs are " << outputs << "; at most " << kMaxOutputs
                             << " are a layer";
  }
  return verify_trit_count(op, "weights are ", weights);
}

// A product of input rows and weights, into a destination.
LogicalResult verify_product(Operation* op, Value input, Value weights, Value init) {
  const ShapedType rows = shaped(input);
  const ShapedType matrix = shaped(weights);
  const ShapedType destination = shaped(init);
  if (failed(verify_form(op, op->getOperands(), 1)) || failed(verify_weights(op, matrix)) ||
      failed(verify_same(op, "depth of the input", rows.getDimSize(1), "depth of the weights",
                         matrix.getDimSize(1))) ||
      failed(verify_same(op, "rows of the input", rows.getDimSize(0), "rows of the destination",
                         destination.getDimSize(0)))) {
    return failure();
  }
  return verify_same(op, "outputs of the weights", matrix.getDimSize(0),
                     "columns of the destination", destination.getDimSize(1));
}

LogicalResult verify_output_scales(Operation* op, Value scales, std::int64_t outputs) {
  const std::int64_t count = shaped(scales).getDimSize(0);
  const bool is_static = ShapedType::isStatic(count);  // 1 and N mean different things
  if (is_static && (count == 1 || same_size(count, outputs))) return success();
  return op->emitOpError() << "output scales are " << size_text(count)
                           << "; they must be a static number, 1 or the number of outputs, "
                           << size_text(outputs);
}

bool is_wide(Value value) { return shaped(value).getElementType().isF64(); }

LogicalResult reify_destinations(Operation* op, OperandRange inits, OpBuilder& builder,
                                 ReifiedRankedShapedTypeDims& shapes) {
  for (const Value init : inits) {
    if (!isa<TensorType>(init.getType())) return failure();
    SmallVector<OpFoldResult> sizes;
    for (std::int64_t d = 0; d < shaped(init).getRank(); ++d) {
      sizes.push_back(tensor::getMixedSize(builder, op->getLoc(), init, d));
    }
    shapes.push_back(std::move(sizes));
  }
  return success();
}

// On memrefs: reads its inputs, writes its destinations. On tensors: nothing.
void memory_effects(DestinationStyleOpInterface op,
                    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>& effects) {
  for (OpOperand& operand : op->getOpOperands()) {
    if (!isa<BaseMemRefType>(operand.get().getType())) continue;
    if (op.isDpsInit(&operand)) {
      effects.emplace_back(MemoryEffects::Write::get(), &operand,
                           SideEffects::DefaultResource::get());
    } else {
      effects.emplace_back(MemoryEffects::Read::get(), &operand,
                           SideEffects::DefaultResource::get());
    }
  }
}

}  // namespace

// --- weights -------------------------------------------------------------------------------------

std::optional<ArrayRef<std::uint8_t>> WeightsOp::getBytes() {
  const auto as_bytes = [](ArrayRef<char> raw) {
    return ArrayRef<std::uint8_t>(reinterpret_cast<const std::uint8_t*>(raw.data()), raw.size());
  };
  if (const auto resource = dyn_cast<DenseResourceElementsAttr>(getValue())) {
    const AsmResourceBlob* blob = resource.getRawHandle().getBlob();
    if (blob == nullptr) return std::nullopt;
    return as_bytes(blob->getData());
  }
  if (const auto dense = dyn_cast<DenseElementsAttr>(getValue()))
    return as_bytes(dense.getRawData());
  return std::nullopt;
}

SmallVector<std::int8_t> WeightsOp::getTrits() {
  const auto count = static_cast<std::size_t>(shaped(getResult()).getNumElements());
  SmallVector<std::int8_t> trits;
  trits.resize_for_overwrite(count);
  ArrayRef<std::uint8_t> bytes = *getBytes();
  SmallVector<std::uint8_t> repeated;
  if (bytes.size() != pt5_bytes(count)) {  // a splat keeps one element
    repeated.assign(pt5_bytes(count), bytes.front());
    bytes = repeated;
  }
  [[maybe_unused]] const Status status =
      unpack_pt5({bytes.data(), bytes.size()}, {trits.data(), trits.size()});
  assert(status.ok() && "the verifier has checked the bytes");
  return trits;
}

LogicalResult WeightsOp::verify() {
  const auto result = shaped(getResult());
  if (!result.hasStaticShape()) {
    return emitOpError() << "needs a static shape, but gives " << result;
  }
  const auto memref = dyn_cast<MemRefType>(getResult().getType());
  if (memref && !memref.getLayout().isIdentity()) {
    return emitOpError() << "gives contiguous rows, not " << memref;
  }
  if (!isa<DenseElementsAttr, DenseResourceElementsAttr>(getValue())) {
    return emitOpError("takes dense or dense_resource elements");
  }
  const ShapedType type = getValue().getShapedType();
  if (type.getRank() != 1 || !type.getElementType().isSignlessInteger(8)) {
    return emitOpError() << "takes PT-5 bytes as a vector of i8, not " << type;
  }
  const std::int64_t outputs = result.getDimSize(0);
  const std::int64_t depth = result.getDimSize(1);
  if (failed(verify_trit_count(*this, "gives ", result))) return failure();
  const std::int64_t count = outputs * depth;
  const auto needed = static_cast<std::int64_t>(pt5_bytes(static_cast<std::size_t>(count)));
  if (type.getNumElements() != needed) {
    return emitOpError() << count << " trits take " << needed << " bytes of PT-5, but there are "
                         << type.getNumElements();
  }
  const auto bytes = getBytes();
  if (!bytes) return emitOpError() << "finds no data for " << getValue();
  const bool splat =
      isa<DenseElementsAttr>(getValue()) && cast<DenseElementsAttr>(getValue()).isSplat();
  if (!splat && static_cast<std::int64_t>(bytes->size()) != needed) {
    return emitOpError() << "resource holds " << bytes->size() << " bytes; its type says "
                         << needed;
  }
  for (std::size_t i = 0; i < bytes->size(); ++i) {
    if ((*bytes)[i] >= kPt5Codes) {
      return emitOpError() << "byte " << i << " is " << static_cast<unsigned>((*bytes)[i])
                           << ", an encoding fault; PT-5 bytes are at most " << kPt5Codes - 1;
    }
  }
  return success();
}

// --- quantize ------------------------------------------------------------------------------------

LogicalResult QuantizeOp::verify() {
  if (failed(verify_form(*this, getOperands(), 2))) return failure();
  const ShapedType input = shaped(getInput());
  const ShapedType values = shaped(getValues());
  const ShapedType scales = shaped(getScales());
  if (failed(verify_same(*this, "rows of the input", input.getDimSize(0), "rows of the values",
                         values.getDimSize(0))) ||
      failed(verify_same(*this, "depth of the input", input.getDimSize(1), "depth of the values",
                         values.getDimSize(1))) ||
      failed(verify_same(*this, "rows of the input", input.getDimSize(0), "the number of scales",
                         scales.getDimSize(0)))) {
    return failure();
  }
  if (is_wide(getInput()) != is_wide(getScales())) {
    return emitOpError() << "scales are f64 for f64 input and f32 otherwise, but the input is "
                         << input.getElementType() << " and the scales are "
                         << scales.getElementType();
  }
  return success();
}

// --- gemv ----------------------------------------------------------------------------------------

LogicalResult GemvOp::verify() {
  if (failed(verify_product(*this, getInput(), getWeights(), getInit()))) return failure();
  return verify_layer_attributes(*this, getTileMask(), getWeightAddr(), getTelemetry());
}

// --- dequantize ----------------------------------------------------------------------------------

LogicalResult DequantizeOp::verify() {
  if (failed(verify_form(*this, getOperands(), 1))) return failure();
  const ShapedType sums = shaped(getSums());
  const ShapedType init = shaped(getInit());
  if (failed(verify_same(*this, "rows of the sums", sums.getDimSize(0), "rows of the destination",
                         init.getDimSize(0))) ||
      failed(verify_same(*this, "columns of the sums", sums.getDimSize(1),
                         "columns of the destination", init.getDimSize(1))) ||
      failed(verify_same(*this, "rows of the sums", sums.getDimSize(0), "the number of row scales",
                         shaped(getRowScales()).getDimSize(0))) ||
      failed(verify_output_scales(*this, getOutputScales(), init.getDimSize(1)))) {
    return failure();
  }
  if (getBias() && failed(verify_same(*this, "columns of the sums", sums.getDimSize(1),
                                      "the number of biases", shaped(getBias()).getDimSize(0)))) {
    return failure();
  }
  if (is_wide(getRowScales()) != is_wide(getOutputScales())) {
    return emitOpError("row scales and output scales must be of one type");
  }
  if (getTelemetry()) return verify_telemetry(*getTelemetry(), [&] { return emitOpError(); });
  return success();
}

// --- linear --------------------------------------------------------------------------------------

LogicalResult LinearOp::verify() {
  const std::int64_t outputs = shaped(getWeights()).getDimSize(0);
  if (failed(verify_product(*this, getInput(), getWeights(), getInit())) ||
      failed(verify_output_scales(*this, getOutputScales(), outputs))) {
    return failure();
  }
  if (getBias() && failed(verify_same(*this, "outputs of the weights", outputs,
                                      "the number of biases", shaped(getBias()).getDimSize(0)))) {
    return failure();
  }
  if (is_wide(getInput()) != is_wide(getOutputScales())) {
    return emitOpError()
           << "output scales are f64 for f64 input and f32 otherwise, but the input is "
           << shaped(getInput()).getElementType() << " and the scales are "
           << shaped(getOutputScales()).getElementType();
  }
  return verify_layer_attributes(*this, getTileMask(), getWeightAddr(), getTelemetry());
}

}  // namespace tfmbs::ir

// After the functions that definitions in the .td call.
#define GET_OP_CLASSES
#include "tfmbs-mlir/Dialect/TfmbsOps.cpp.inc"
