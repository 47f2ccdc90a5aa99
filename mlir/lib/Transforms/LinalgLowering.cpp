#include "LinalgLowering.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Utils/StructuredOpsUtils.h"
#include "tfmbs-mlir/Dialect/TelemetryAttributes.h"

namespace tfmbs::ir {

using namespace mlir;  // NOLINT(google-build-using-namespace): MLIR's own convention

namespace {

using utils::IteratorType;

ShapedType shaped(Value value) { return cast<ShapedType>(value.getType()); }
FloatType float_element(Value value) { return cast<FloatType>(shaped(value).getElementType()); }

// Tensor ops return their destinations, memref ops do not.
SmallVector<Type, 1> result_types(Value init) {
  if (isa<TensorType>(init.getType())) return {init.getType()};
  return {};
}
Value result_or(Operation* op, Value init) {
  return op->getNumResults() == 0 ? init : op->getResult(0);
}

Value constant(OpBuilder& builder, Location loc, Type type, double value) {
  if (isa<FloatType>(type)) {
    return arith::ConstantOp::create(builder, loc, builder.getFloatAttr(type, value));
  }
  return arith::ConstantOp::create(builder, loc,
                                   builder.getIntegerAttr(type, static_cast<std::int64_t>(value)));
}
Value nan_constant(OpBuilder& builder, Location loc, FloatType type) {
  return arith::ConstantOp::create(
      builder, loc, builder.getFloatAttr(type, llvm::APFloat::getQNaN(type.getFloatSemantics())));
}

Value fill(OpBuilder& builder, Location loc, Value init, double value) {
  const Value scalar = constant(builder, loc, shaped(init).getElementType(), value);
  const auto op = linalg::FillOp::create(builder, loc, result_types(init), ValueRange{scalar},
                                         ValueRange{init});
  return result_or(op, init);
}

// A value of any float type as `type`: exact to a wider one, rounded once to a narrower one.
Value convert(OpBuilder& builder, Location loc, Value value, FloatType type) {
  auto from = cast<FloatType>(value.getType());
  if (from == type) return value;
  if (from.getWidth() < type.getWidth()) return arith::ExtFOp::create(builder, loc, type, value);
  if (from.getWidth() > type.getWidth()) return arith::TruncFOp::create(builder, loc, type, value);
  // bf16 and f16: neither holds the other.
  const Value wide = arith::ExtFOp::create(builder, loc, builder.getF32Type(), value);
  return arith::TruncFOp::create(builder, loc, type, wide);
}

Value compare(OpBuilder& builder, Location loc, arith::CmpFPredicate predicate, Value a, Value b) {
  return arith::CmpFOp::create(builder, loc, predicate, a, b);
}
Value select(OpBuilder& builder, Location loc, Value condition, Value a, Value b) {
  return arith::SelectOp::create(builder, loc, condition, a, b);
}

// Indices of a two-dimensional loop nest.
AffineMap element_map(MLIRContext* context) {
  return AffineMap::getMultiDimIdentityMap(2, context);
}
AffineMap row_map(MLIRContext* context) {
  return AffineMap::get(2, 0, getAffineDimExpr(0, context), context);
}
AffineMap column_map(MLIRContext* context) {
  return AffineMap::get(2, 0, getAffineDimExpr(1, context), context);
}
AffineMap first_map(MLIRContext* context) {
  return AffineMap::get(2, 0, getAffineConstantExpr(0, context), context);
}

// One destination; the body takes the inputs' elements and the destination's, and returns the new
// element.
using Body = llvm::function_ref<Value(OpBuilder&, ValueRange)>;
Value build_generic(OpBuilder& builder, Location loc, ValueRange inputs, Value init,
                    ArrayRef<AffineMap> maps, ArrayRef<IteratorType> iterators, Body body) {
  const auto op = linalg::GenericOp::create(
      builder, loc, result_types(init), inputs, ValueRange{init}, maps, iterators,
      [&](OpBuilder& inner, Location inner_loc, ValueRange elements) {
        linalg::YieldOp::create(inner, inner_loc, body(inner, elements));
      });
  return result_or(op, init);
}

constexpr IteratorType kElementwise[] = {IteratorType::parallel, IteratorType::parallel};
constexpr IteratorType kRowReduction[] = {IteratorType::parallel, IteratorType::reduction};

// sign(x), 0 for a NaN; scale 1, NaN for a row with a NaN.
Quantized build_ternary(OpBuilder& builder, Location loc, Value input, Value values, Value scales) {
  MLIRContext* context = builder.getContext();
  const FloatType real = float_element(scales);
  values = build_generic(builder, loc, input, values, {element_map(context), element_map(context)},
                         kElementwise, [&](OpBuilder& b, ValueRange element) {
                           const Value x = convert(b, loc, element[0], real);
                           const Value zero = constant(b, loc, real, 0);
                           const Value plus = compare(b, loc, arith::CmpFPredicate::OGT, x, zero);
                           const Value minus = compare(b, loc, arith::CmpFPredicate::OLT, x, zero);
                           const Type i8 = b.getI8Type();
                           const Value negative = select(b, loc, minus, constant(b, loc, i8, -1),
                                                         constant(b, loc, i8, 0));
                           return select(b, loc, plus, constant(b, loc, i8, 1), negative);
                         });
  scales = build_generic(builder, loc, input, fill(builder, loc, scales, 1),
                         {element_map(context), row_map(context)}, kRowReduction,
                         [&](OpBuilder& b, ValueRange element) {
                           const Value x = convert(b, loc, element[0], real);
                           const Value is_nan = compare(b, loc, arith::CmpFPredicate::UNO, x, x);
                           return select(b, loc, is_nan, nan_constant(b, loc, real), element[1]);
                         });
  return {values, scales};
}

// max(largest, 1e-5), as `a` of docs/python-api.md.
Value build_floor(OpBuilder& builder, Location loc, Value largest, FloatType real) {
  const Value floor = constant(builder, loc, real, 1e-5);
  const Value above = compare(builder, loc, arith::CmpFPredicate::OGT, largest, floor);
  return select(builder, loc, above, largest, floor);
}

// The row's largest magnitude stands in `scales` first: NaN where the row has a NaN, which
// arith.maximumf keeps, and infinite where it has an infinity.
Quantized build_int8(OpBuilder& builder, Location loc, Value input, Value values, Value scales) {
  MLIRContext* context = builder.getContext();
  const FloatType real = float_element(scales);
  const Value largest = build_generic(
      builder, loc, input, fill(builder, loc, scales, 0), {element_map(context), row_map(context)},
      kRowReduction, [&](OpBuilder& b, ValueRange element) -> Value {
        const Value x = convert(b, loc, element[0], real);
        const Value magnitude = math::AbsFOp::create(b, loc, x);
        return arith::MaximumFOp::create(b, loc, magnitude, element[1]);
      });
  const auto is_finite = [&](OpBuilder& b, Value top) {
    const Value infinity = arith::ConstantOp::create(
        b, loc, b.getFloatAttr(real, llvm::APFloat::getInf(real.getFloatSemantics())));
    return compare(b, loc, arith::CmpFPredicate::OLT, top, infinity);
  };
  values = build_generic(
      builder, loc, {input, largest}, values,
      {element_map(context), row_map(context), element_map(context)}, kElementwise,
      [&](OpBuilder& b, ValueRange element) -> Value {
        const Value x = convert(b, loc, element[0], real);
        const Value top = build_floor(b, loc, element[1], real);
        const Value inverse = arith::DivFOp::create(b, loc, constant(b, loc, real, 127), top);
        const Value scaled = arith::MulFOp::create(b, loc, x, inverse);
        const Value rounded = math::RoundEvenOp::create(b, loc, scaled);
        const Value at_most =
            arith::MinimumFOp::create(b, loc, rounded, constant(b, loc, real, 127));
        const Value at_least =
            arith::MaximumFOp::create(b, loc, at_most, constant(b, loc, real, -127));
        // A float that no i8 holds has no conversion: rows without a number are zero before it.
        const Value number =
            select(b, loc, is_finite(b, element[1]), at_least, constant(b, loc, real, 0));
        return arith::FPToSIOp::create(b, loc, b.getI8Type(), number);
      });
  const AffineMap identity = AffineMap::getMultiDimIdentityMap(1, context);
  const auto scale = [&](OpBuilder& b, ValueRange element) {
    const Value top = build_floor(b, loc, element.back(), real);
    const Value quotient = arith::DivFOp::create(b, loc, top, constant(b, loc, real, 127));
    return select(b, loc, is_finite(b, element.back()), quotient, nan_constant(b, loc, real));
  };
  scales =
      build_generic(builder, loc, ValueRange{}, largest, identity, IteratorType::parallel, scale);
  return {values, scales};
}

}  // namespace

Quantized build_quantize(OpBuilder& builder, Location loc, Value input, Value values, Value scales,
                         Activation activation) {
  switch (activation) {
    case Activation::Ternary:
      return build_ternary(builder, loc, input, values, scales);
    case Activation::Int8:
      return build_int8(builder, loc, input, values, scales);
  }
  llvm_unreachable("the attribute holds no other value");
}

Value build_matmul(OpBuilder& builder, Operation* layer, Value input, Value weights, Value init) {
  const Location loc = layer->getLoc();
  const Value filled = fill(builder, loc, init, 0);
  const auto op = linalg::MatmulOp::create(builder, loc, result_types(init),
                                           ValueRange{input, weights}, ValueRange{filled});
  copy_layer_attributes(layer, op);
  return result_or(op, init);
}

Value build_dequantize(OpBuilder& builder, Location loc, Value sums, Value row_scales,
                       Value output_scales, Value bias, Value init, bool relu) {
  MLIRContext* context = builder.getContext();
  const FloatType real = float_element(row_scales);
  const bool one_scale = shaped(output_scales).getDimSize(0) == 1;
  SmallVector<Value> inputs = {sums, row_scales, output_scales};
  SmallVector<AffineMap> maps = {element_map(context), row_map(context),
                                 one_scale ? first_map(context) : column_map(context)};
  if (bias) {
    inputs.push_back(bias);
    maps.push_back(column_map(context));
  }
  maps.push_back(element_map(context));
  return build_generic(
      builder, loc, inputs, init, maps, kElementwise, [&](OpBuilder& b, ValueRange element) {
        const Value sum = arith::SIToFPOp::create(b, loc, real, element[0]);
        const Value scale = arith::MulFOp::create(b, loc, element[1], element[2]);
        Value y = arith::MulFOp::create(b, loc, sum, scale);
        if (bias) y = arith::AddFOp::create(b, loc, y, convert(b, loc, element[3], real));
        y = convert(b, loc, y, float_element(init));
        if (!relu) return y;
        // As torch's: a NaN stays, and so does the sign of a zero.
        const Value zero = constant(b, loc, y.getType(), 0);
        const Value below = arith::CmpFOp::create(b, loc, arith::CmpFPredicate::OLT, y, zero);
        return arith::SelectOp::create(b, loc, below, zero, y).getResult();
      });
}

}  // namespace tfmbs::ir
