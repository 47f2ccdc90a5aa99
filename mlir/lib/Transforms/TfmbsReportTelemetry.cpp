#include <array>
#include <charconv>
#include <cmath>

#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/ToolOutputFile.h"
#include "mlir/Interfaces/DestinationStyleOpInterface.h"
#include "mlir/Support/FileUtilities.h"
#include "tfmbs-mlir/Dialect/TfmbsOps.h"
#include "tfmbs-mlir/Transforms/Passes.h"

namespace tfmbs::ir {

using namespace mlir;  // NOLINT(google-build-using-namespace): MLIR's own convention

#define GEN_PASS_DEF_TFMBSREPORTTELEMETRY
#include "tfmbs-mlir/Transforms/Passes.h.inc"

namespace {

constexpr llvm::StringLiteral kInFeatures = "in_features";
constexpr llvm::StringLiteral kOutFeatures = "out_features";
constexpr llvm::StringLiteral kOp = "op";

// The shortest decimal that reads back as the number; JSON has none for infinities and NaN.
void write_number(llvm::json::OStream& json, double value) {
  if (!std::isfinite(value)) {
    json.value(nullptr);
    return;
  }
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  json.rawValue(StringRef(text.data(), static_cast<std::size_t>(end - text.data())));
}

void write_integer(llvm::json::OStream& json, IntegerAttr attribute) {
  if (attribute.getType().isInteger(1)) {
    json.value(attribute.getValue().getBoolValue());
    return;
  }
  SmallString<24> text;
  attribute.getValue().toString(text, 10, !attribute.getType().isUnsignedInteger());
  json.rawValue(text);
}

void write_attribute(llvm::json::OStream& json, Attribute attribute) {
  TypeSwitch<Attribute>(attribute)
      .Case([&](StringAttr text) { json.value(llvm::json::fixUTF8(text.getValue())); })
      .Case([&](IntegerAttr integer) { write_integer(json, integer); })
      .Case([&](FloatAttr number) { write_number(json, number.getValueAsDouble()); })
      .Case([&](UnitAttr) { json.value(true); })
      .Case([&](ArrayAttr array) {
        json.array([&] {
          for (const Attribute element : array) write_attribute(json, element);
        });
      })
      .Case([&](DictionaryAttr dictionary) {
        json.object([&] {
          for (const NamedAttribute entry : dictionary) {
            json.attributeBegin(llvm::json::fixUTF8(entry.getName().getValue()));
            write_attribute(json, entry.getValue());
            json.attributeEnd();
          }
        });
      })
      .Default([&](Attribute other) {  // as MLIR writes it
        std::string text;
        llvm::raw_string_ostream stream(text);
        other.print(stream);
        json.value(llvm::json::fixUTF8(text));
      });
}

// A size of a value's last dimension, where it is a matrix and the size is static.
std::optional<std::int64_t> features(Value value) {
  const auto type = dyn_cast<ShapedType>(value.getType());
  if (!type || !type.hasRank() || type.getRank() != 2 || type.isDynamicDim(1)) return std::nullopt;
  return type.getDimSize(1);
}

// Depth and outputs of a layer's op. Its first operand is the input, whatever it was lowered to;
// the destination is known by its interface, or the last operand of a call.
std::pair<std::optional<std::int64_t>, std::optional<std::int64_t>> layer_shape(Operation* op) {
  if (auto gemv = dyn_cast<GemvOp>(op)) {
    const auto weights = cast<ShapedType>(gemv.getWeights().getType());
    return {weights.getDimSize(1), weights.getDimSize(0)};
  }
  if (auto linear = dyn_cast<LinearOp>(op)) {
    const auto weights = cast<ShapedType>(linear.getWeights().getType());
    return {weights.getDimSize(1), weights.getDimSize(0)};
  }
  if (auto dequantize = dyn_cast<DequantizeOp>(op)) {
    return {std::nullopt, features(dequantize.getInit())};
  }
  if (op->getNumOperands() == 0) return {};
  auto destination = dyn_cast<DestinationStyleOpInterface>(op);
  if (destination && destination.getNumDpsInits() == 1) {
    return {features(op->getOperand(0)), features(destination.getDpsInitOperand(0)->get())};
  }
  return {features(op->getOperand(0)), features(op->getOperands().back())};
}

LogicalResult check(Operation* op, Attribute attribute) {
  const auto telemetry = dyn_cast<DictionaryAttr>(attribute);
  if (!telemetry) {
    return op->emitOpError() << "telemetry must be a dictionary, but is " << attribute;
  }
  return verify_telemetry(telemetry, [&] { return op->emitOpError(); });
}

void write_op(llvm::json::OStream& json, Operation* op) {
  json.object([&] {
    const auto write = [&](StringRef key, Attribute attribute) {
      json.attributeBegin(llvm::json::fixUTF8(key));
      write_attribute(json, attribute);
      json.attributeEnd();
    };
    const auto telemetry = op->getAttrOfType<DictionaryAttr>(kTelemetry);
    write(kLayer, telemetry.get(kLayer));
    write(kSparsity, telemetry.get(kSparsity));
    for (const StringRef key : {kTileMask, kWeightAddress}) {
      if (const Attribute attribute = op->getAttr(key)) write(key, attribute);
    }
    const auto [in, out] = layer_shape(op);
    if (in) json.attribute(kInFeatures, *in);
    if (out) json.attribute(kOutFeatures, *out);
    json.attribute(kOp, op->getName().getStringRef());
    for (const NamedAttribute entry : telemetry) {
      const StringRef key = entry.getName().getValue();
      const bool own = key == kTileMask || key == kWeightAddress ? op->hasAttr(key)
                       : key == kInFeatures                      ? in.has_value()
                       : key == kOutFeatures ? out.has_value()
                                             : key == kLayer || key == kSparsity || key == kOp;
      if (!own) write(key, entry.getValue());
    }
  });
}

struct TfmbsReportTelemetry : impl::TfmbsReportTelemetryBase<TfmbsReportTelemetry> {
  using TfmbsReportTelemetryBase::TfmbsReportTelemetryBase;

  void runOnOperation() override {
    SmallVector<Operation*> carriers;
    const WalkResult walked = getOperation()->walk<WalkOrder::PreOrder>([&](Operation* op) {
      const Attribute telemetry = op->getAttr(kTelemetry);
      if (!telemetry) return WalkResult::advance();
      carriers.push_back(op);
      return WalkResult(check(op, telemetry));
    });
    if (walked.wasInterrupted()) return signalPassFailure();

    std::string error;
    const auto file = openOutputFile(output, &error);
    if (!file) {
      getOperation().emitError() << "telemetry cannot be written: " << error;
      return signalPassFailure();
    }
    llvm::json::OStream json(file->os(), 2);
    json.array([&] {
      for (Operation* op : carriers) write_op(json, op);
    });
    json.flush();
    file->os() << "\n";
    file->os().flush();
    if (file->os().has_error()) {
      getOperation().emitError() << "telemetry cannot be written to '" << output
                                 << "': " << file->os().error().message();
      file->os().clear_error();
      return signalPassFailure();
    }
    file->keep();
    markAllAnalysesPreserved();
  }
};

}  // namespace
}  // namespace tfmbs::ir
