#include "RuntimeModule.h"

#include "LayerConstants.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "tfmbs/c/layer.h"
#include "tfmbs/format/pt5.hpp"

namespace tfmbs::ir {

using namespace mlir;  // NOLINT(google-build-using-namespace): MLIR's own convention

namespace {

constexpr llvm::StringLiteral kDefine = "tfmbs_layer_define";
constexpr llvm::StringLiteral kForward = "tfmbs_layer_forward";
constexpr llvm::StringLiteral kReleaseLayer = "tfmbs_layer_release";
constexpr llvm::StringLiteral kRelease = "tfmbs_release";

std::int32_t type_code(Type type) {
  if (type.isF64()) return TFMBS_F64;
  if (type.isBF16()) return TFMBS_BF16;
  return type.isF16() ? TFMBS_F16 : TFMBS_F32;
}

// An activation is the same number in the IR and in the C interface.
static_assert(static_cast<int>(Activation::Ternary) == TFMBS_TERNARY);
static_assert(static_cast<int>(Activation::Int8) == TFMBS_INT8);
static_assert(getMaxEnumValForActivation() == TFMBS_INT8);

Value constant(OpBuilder& builder, Location location, std::int64_t value, unsigned bits) {
  return LLVM::ConstantOp::create(builder, location,
                                  builder.getIntegerAttr(builder.getIntegerType(bits), value));
}

// Where a contiguous memref's first element lies.
Value first_element(OpBuilder& builder, Location location, Value memref) {
  const auto type = cast<MemRefType>(memref.getType());
  Value address = memref::ExtractAlignedPointerAsIndexOp::create(builder, location, memref);
  if (!type.getLayout().isIdentity()) {
    auto metadata = memref::ExtractStridedMetadataOp::create(builder, location, memref);
    const Value size = arith::ConstantIndexOp::create(
        builder, location, type.getElementType().getIntOrFloatBitWidth() / 8);
    const Value bytes = arith::MulIOp::create(builder, location, metadata.getOffset(), size);
    address = arith::AddIOp::create(builder, location, address, bytes);
  }
  address = arith::IndexCastOp::create(builder, location, builder.getI64Type(), address);
  return LLVM::IntToPtrOp::create(builder, location,
                                  LLVM::LLVMPointerType::get(builder.getContext()), address);
}

// max(y, 0) in place, where a NaN stays and, as in torch.relu, a negative zero too.
void write_relu(OpBuilder& builder, Location location, Value memref) {
  const auto type = cast<MemRefType>(memref.getType());
  const auto rank = static_cast<unsigned>(type.getRank());
  const SmallVector<utils::IteratorType> loops(rank, utils::IteratorType::parallel);
  linalg::GenericOp::create(
      builder, location, ValueRange{}, ValueRange{memref},
      ArrayRef<AffineMap>{builder.getMultiDimIdentityMap(rank)}, loops,
      [&](OpBuilder& body, Location at, ValueRange elements) {
        const Value y = elements.front();
        const Value zero =
            arith::ConstantOp::create(body, at, body.getFloatAttr(type.getElementType(), 0.0));
        const Value below = arith::CmpFOp::create(body, at, arith::CmpFPredicate::OLT, y, zero);
        const Value result = arith::SelectOp::create(body, at, below, zero, y);
        linalg::YieldOp::create(body, at, result);
      });
}

}  // namespace

RuntimeModule::RuntimeModule(ModuleOp module, StringRef fabric)
    : module_(module),
      symbols_(module),
      fabric_text_(fabric),
      builder_(module.getContext()),
      location_(module.getLoc()),
      pointer_(LLVM::LLVMPointerType::get(module.getContext())) {}

LogicalResult RuntimeModule::check() {
  for (const StringRef name : {kRelease, kDefine, kForward, kReleaseLayer}) {
    if (Operation* op = symbols_.lookup(name)) {
      return op->emitOpError() << "has the name '" << name
                               << "', which tfmbs-to-runtime gives to a function of its own; it "
                                  "runs once on a module";
    }
  }
  return success();
}

LLVM::GlobalOp RuntimeModule::global(StringRef name, Type type, bool is_constant, Attribute value) {
  builder_.clearInsertionPoint();
  auto op = LLVM::GlobalOp::create(builder_, location_, type, is_constant, LLVM::Linkage::Internal,
                                   name, value);
  symbols_.insert(op, module_.getBody()->begin());
  return op;
}

LLVM::GlobalOp RuntimeModule::text(StringRef name, StringRef value) {
  const std::string terminated = (value + StringRef("\0", 1)).str();
  return global(name, LLVM::LLVMArrayType::get(builder_.getI8Type(), terminated.size()), true,
                builder_.getStringAttr(terminated));
}

LLVM::GlobalOp RuntimeModule::array(StringRef name, ElementsAttr elements) {
  const auto count = static_cast<std::uint64_t>(elements.getNumElements());
  return global(name, LLVM::LLVMArrayType::get(elements.getElementType(), count), true,
                as_attribute(elements));
}

LLVM::LLVMFuncOp RuntimeModule::declare(StringRef name, Type result, ArrayRef<Type> arguments) {
  if (auto known = symbols_.lookup<LLVM::LLVMFuncOp>(name)) return known;
  builder_.clearInsertionPoint();
  auto op = LLVM::LLVMFuncOp::create(builder_, location_, name,
                                     LLVM::LLVMFunctionType::get(result, arguments));
  symbols_.insert(op, module_.getBody()->begin());
  return op;
}

FailureOr<ElementsAttr> RuntimeModule::packed_weights(LinearOp op) {
  const ElementsAttr elements = constant_elements(op.getWeights());
  if (!elements) {
    op->emitOpError("weights are no constant; the runtime packs them once");
    return failure();
  }
  if (isa<TritType>(cast<ShapedType>(op.getWeights().getType()).getElementType())) return elements;
  const FailureOr<SmallVector<char>> raw = element_bytes(elements);
  if (failed(raw)) {
    op->emitOpError() << "weights have no data: " << elements;
    return failure();
  }
  const auto* trits = reinterpret_cast<const std::int8_t*>(raw->data());
  SmallVector<std::uint8_t> bytes(pt5_bytes(raw->size()));
  if (const auto s = pack_pt5({trits, raw->size()}, {bytes.data(), bytes.size()}); !s) {
    op->emitOpError() << "weights: " << s.error().message;
    return failure();
  }
  const auto type =
      RankedTensorType::get({static_cast<std::int64_t>(bytes.size())}, builder_.getI8Type());
  return cast<ElementsAttr>(Attribute(DenseElementsAttr::get(type, ArrayRef<std::uint8_t>(bytes))));
}

FailureOr<std::size_t> RuntimeModule::layer_of(LinearOp op) {
  const StringRef name = layer_name(op.getTelemetry());
  if (name.contains('\0') || StringRef(fabric_text_).contains('\0')) {
    op->emitOpError("a layer's name and the fabric's text can hold no null character");
    return failure();
  }
  const ElementsAttr scales = constant_elements(op.getOutputScales());
  if (!scales) {
    op->emitOpError("output scales are no constant; the runtime takes them once");
    return failure();
  }
  const FailureOr<ElementsAttr> weights = packed_weights(op);
  if (failed(weights)) return failure();
  const std::optional<std::uint64_t> address = op.getWeightAddr();
  if (address && *address > static_cast<std::uint64_t>(INT64_MAX)) {
    op->emitOpError() << "weight_addr " << *address << " is no address of a fabric";
    return failure();
  }
  const Attribute identity = builder_.getArrayAttr(
      {layer_identity(op, op.getWeights()), as_attribute(scales), op.getActivationAttr(),
       address ? Attribute(op.getWeightAddrAttr()) : Attribute(builder_.getUnitAttr())});
  const auto [found, is_new] = known_layers_.try_emplace(identity, layers_.size());
  if (!is_new) return found->second;

  if (!fabric_) fabric_ = text("tfmbs_fabric", fabric_text_);
  const std::string number = std::to_string(layers_.size());
  Layer layer;
  layer.slot = global("tfmbs_slot_" + number, pointer_, false, Attribute());
  builder_.createBlock(&layer.slot.getInitializerRegion());
  const Value null = LLVM::ZeroOp::create(builder_, location_, pointer_);
  LLVM::ReturnOp::create(builder_, location_, null);
  layer.name = text("tfmbs_name_" + number, name);
  layer.weights = array("tfmbs_weights_" + number, *weights);
  layer.scales = array("tfmbs_scales_" + number, scales);
  layer.outputs = static_cast<std::int64_t>(weight_size(op.getWeights(), 0));
  layer.depth = static_cast<std::int64_t>(weight_size(op.getWeights(), 1));
  layer.scale_count = scales.getNumElements();
  layer.scale_type = scales.getElementType();
  layer.activation = op.getActivation();
  layer.tile_mask = op.getTileMask();
  if (address) layer.weight_address = static_cast<std::int64_t>(*address);
  layers_.push_back(layer);
  return found->second;
}

FailureOr<func::FuncOp> RuntimeModule::layer_function(LinearOp op, Type input, Type bias,
                                                      Type output) {
  const FailureOr<std::size_t> index = layer_of(op);
  if (failed(index)) return failure();
  SmallVector<Type> arguments{input};
  if (bias) arguments.push_back(bias);
  arguments.push_back(output);
  const auto type = builder_.getFunctionType(arguments, {});
  const Attribute key =
      builder_.getArrayAttr({builder_.getIndexAttr(static_cast<std::int64_t>(*index)),
                             TypeAttr::get(type), builder_.getBoolAttr(op.getRelu())});
  func::FuncOp& function = functions_[key];
  if (function) return function;
  builder_.clearInsertionPoint();
  function =
      func::FuncOp::create(builder_, op.getLoc(), "tfmbs_forward_" + std::to_string(*index), type);
  function.setPrivate();
  // Inlined, the buffers' last readers would be the ops that take their addresses.
  function.setNoInline(true);
  function->setAttr("llvm.linkage",
                    LLVM::LinkageAttr::get(module_.getContext(), LLVM::Linkage::Internal));
  symbols_.insert(function);
  write_body(op, layers_[*index], function);
  return function;
}

void RuntimeModule::write_body(LinearOp op, const Layer& layer, func::FuncOp function) {
  const Type i32 = builder_.getI32Type();
  const Type i64 = builder_.getI64Type();
  const auto define = declare(
      kDefine, i32,
      {pointer_, pointer_, i64, i64, i32, i64, i64, pointer_, pointer_, pointer_, i64, i32});
  const auto forward =
      declare(kForward, i32, {pointer_, pointer_, i32, i64, pointer_, i32, pointer_, i32});

  const Location at = op.getLoc();
  OpBuilder builder = OpBuilder::atBlockBegin(function.addEntryBlock());
  const auto number = [&](std::int64_t value, unsigned bits) {
    return constant(builder, at, value, bits);
  };
  const auto address_of = [&](LLVM::GlobalOp global) -> Value {
    return LLVM::AddressOfOp::create(builder, at, global);
  };
  const auto code = [&](Value memref) {
    return number(type_code(cast<MemRefType>(memref.getType()).getElementType()), 32);
  };
  const Value slot = address_of(layer.slot);
  LLVM::CallOp::create(
      builder, at, define,
      ValueRange{slot, address_of(layer.name), number(layer.outputs, 64), number(layer.depth, 64),
                 number(static_cast<std::int64_t>(layer.activation), 32),
                 number(static_cast<std::int64_t>(layer.tile_mask), 64),
                 number(layer.weight_address, 64), address_of(fabric_), address_of(layer.weights),
                 address_of(layer.scales), number(layer.scale_count, 64),
                 number(type_code(layer.scale_type), 32)});

  // Whatever define said: after an error forward says it, and fills the output with NaN.
  const Value input = function.getArgument(0);
  const Value output = function.getArguments().back();
  const bool has_bias = function.getNumArguments() == 3;
  const Value samples =
      arith::IndexCastOp::create(builder, at, i64, memref::DimOp::create(builder, at, input, 0));
  const Value bias = has_bias ? first_element(builder, at, function.getArgument(1))
                              : LLVM::ZeroOp::create(builder, at, pointer_).getResult();
  LLVM::CallOp::create(builder, at, forward,
                       ValueRange{slot, first_element(builder, at, input), code(input), samples,
                                  bias, has_bias ? code(function.getArgument(1)) : number(0, 32),
                                  first_element(builder, at, output), code(output)});
  if (op.getRelu()) write_relu(builder, at, output);
  func::ReturnOp::create(builder, at);
}

void RuntimeModule::finish() {
  const auto release_layer =
      declare(kReleaseLayer, LLVM::LLVMVoidType::get(module_.getContext()), {pointer_});
  builder_.clearInsertionPoint();
  auto release = LLVM::LLVMFuncOp::create(
      builder_, location_, kRelease,
      LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(module_.getContext()), {}));
  symbols_.insert(release);
  OpBuilder builder(module_.getContext());
  builder.setInsertionPointToStart(release.addEntryBlock(builder));
  for (const Layer& layer : layers_) {
    const Value slot = LLVM::AddressOfOp::create(builder, location_, layer.slot);
    LLVM::CallOp::create(builder, location_, release_layer, ValueRange{slot});
  }
  LLVM::ReturnOp::create(builder, location_, ValueRange{});
}

}  // namespace tfmbs::ir
