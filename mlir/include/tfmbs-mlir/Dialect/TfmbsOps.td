// The ops.
#ifndef TFMBS_MLIR_DIALECT_TFMBSOPS_TD
#define TFMBS_MLIR_DIALECT_TFMBSOPS_TD

include "tfmbs-mlir/Dialect/TfmbsDialect.td"
include "mlir/IR/BuiltinAttributes.td"
include "mlir/IR/OpBase.td"
include "mlir/Interfaces/DestinationStyleOpInterface.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

class Tfmbs_Op<string mnemonic, list<Trait> traits = []> : Op<Tfmbs_Dialect, mnemonic, traits>;

// Destination-style on tensors or memrefs; one destination, `init`, unless the op says otherwise.
class Tfmbs_DestinationOp<string mnemonic, list<Trait> traits = []>
    : Tfmbs_Op<mnemonic, [DestinationStyleOpInterface,
        DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface, ["reifyResultShapes"]>,
        DeclareOpInterfaceMethods<MemoryEffectsOpInterface>] # traits> {
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    ::mlir::MutableOperandRange getDpsInitsMutable() { return getInitMutable(); }
  }];
  let extraClassDefinition = [{
    ::llvm::LogicalResult $cppClass::reifyResultShapes(
        ::mlir::OpBuilder& builder, ::mlir::ReifiedRankedShapedTypeDims& shapes) {
      return reify_destinations(*this, getDpsInits(), builder, shapes);
    }
    void $cppClass::getEffects(
        ::mlir::SmallVectorImpl<::mlir::SideEffects::EffectInstance<::mlir::MemoryEffects::Effect>>&
            effects) {
      memory_effects(*this, effects);
    }
  }];
}

def Tfmbs_TritMatrix : AnyTypeOf<[2DTensorOf<[Tfmbs_TritType]>, MemRefRankOf<[Tfmbs_TritType], [2]>],
                                 "matrix of !tfmbs.trit">;
class Tfmbs_MatrixOf<list<Type> elements, string what>
    : AnyTypeOf<[2DTensorOf<elements>, MemRefRankOf<elements, [2]>], what>;
class Tfmbs_VectorOf<list<Type> elements, string what>
    : AnyTypeOf<[1DTensorOf<elements>, MemRefRankOf<elements, [1]>], what>;

def Tfmbs_FloatMatrix : Tfmbs_MatrixOf<[F32, F64, BF16, F16], "matrix of f32, f64, bf16 or f16">;
def Tfmbs_FloatVector : Tfmbs_VectorOf<[F32, F64, BF16, F16], "vector of f32, f64, bf16 or f16">;
def Tfmbs_ScaleVector : Tfmbs_VectorOf<[F32, F64], "vector of f32 or f64">;
def Tfmbs_I8Matrix : Tfmbs_MatrixOf<[I8], "matrix of i8">;
def Tfmbs_I32Matrix : Tfmbs_MatrixOf<[I32], "matrix of i32">;
def Tfmbs_WeightMatrix : AnyTypeOf<[Tfmbs_TritMatrix, Tfmbs_I8Matrix],
                                   "matrix of !tfmbs.trit or i8">;

// What an op that stands for a layer on the fabric carries.
defvar layerAttributes = (ins
  UI64Attr:$tile_mask,
  OptionalAttr<UI64Attr>:$weight_addr,
  DictionaryAttr:$telemetry);

def Tfmbs_WeightsOp : Tfmbs_Op<"weights", [Pure]> {
  let summary = "a constant matrix of trits";
  let description = [{
    Row-major trits of an N x K matrix as one PT-5 stream of ceil(N·K/5) bytes, a vector of i8. A byte above
    242, or an element count that is not the matrix's, is an error; digits after the last trit mean
    nothing.
    On memrefs the result is constant memory, which nothing may write.

    ```mlir
    %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>
    %v = tfmbs.weights dense_resource<fc1> : tensor<9408xi8> -> tensor<60x784x!tfmbs.trit>
    ```
  }];
  let arguments = (ins ElementsAttr:$value);
  let results = (outs Tfmbs_TritMatrix:$result);
  let assemblyFormat = "attr-dict $value `->` type($result)";
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    // The PT-5 bytes; nothing where the resource is not in the module (the verifier says so).
    ::std::optional<::llvm::ArrayRef<uint8_t>> getBytes();
    // The trits, row-major, one a byte. Precondition: the op is valid.
    ::llvm::SmallVector<int8_t> getTrits();
  }];
}

def Tfmbs_QuantizeOp : Tfmbs_DestinationOp<"quantize", [SameVariadicResultSize]> {
  let summary = "activations to trits or int8, with a scale a row";
  let description = [{
    `ternary`: the sign of each element; the row's scale is 1. `int8` (BitNet b1.58):
    a = max(max|x|, 1e-5), q = clamp(roundeven(x · (127 / a)), −127, 127), scale a / 127, in f32 (f64
    for f64 input), each operation rounded once. A row with a NaN, or for `int8` an infinity, has a
    NaN scale, and for `int8` zero values; a NaN's trit is 0.

    ```mlir
    %q, %s = tfmbs.quantize ternary ins(%x : tensor<?x784xf32>)
        outs(%q0, %s0 : tensor<?x784xi8>, tensor<?xf32>) -> tensor<?x784xi8>, tensor<?xf32>
    tfmbs.quantize int8 ins(%x : memref<4x9xf64>) outs(%q, %s : memref<4x9xi8>, memref<4xf64>)
    ```
  }];
  let arguments = (ins
    Tfmbs_FloatMatrix:$input,
    Tfmbs_I8Matrix:$values,
    Tfmbs_ScaleVector:$scales,
    Tfmbs_ActivationAttr:$activation);
  let results = (outs Optional<2DTensorOf<[I8]>>:$quantized, Optional<1DTensorOf<[F32, F64]>>:$row_scales);
  let assemblyFormat = [{
    $activation attr-dict `ins` `(` $input `:` type($input) `)`
    `outs` `(` $values `,` $scales `:` type($values) `,` type($scales) `)`
    (`->` type($quantized)^ `,` type($row_scales))?
  }];
  let extraClassDeclaration = [{
    ::mlir::MutableOperandRange getDpsInitsMutable() {
      return ::mlir::MutableOperandRange(getOperation(), 1, 2);
    }
  }];
}

def Tfmbs_GemvOp : Tfmbs_DestinationOp<"gemv"> {
  let summary = "a product with ternary weights, for each row of the input";
  let description = [{
    out[m][n] = Σ_k input[m][k] · weights[n][k] in i32, exact for K up to 2^24. The destination is
    overwritten. Weights are N x K: `!tfmbs.trit`, or i8 of values −1…1 where they come from elsewhere.

    ```mlir
    %acc = tfmbs.gemv {tile_mask = 15 : ui64, telemetry = {layer = "fc1", sparsity = 0.0000}}
        ins(%q, %w : tensor<?x784xi8>, tensor<60x784x!tfmbs.trit>)
        outs(%init : tensor<?x60xi32>) -> tensor<?x60xi32>
    ```
  }];
  let arguments = !con((ins
    Tfmbs_I8Matrix:$input,
    Tfmbs_WeightMatrix:$weights,
    Tfmbs_I32Matrix:$init), layerAttributes);
  let results = (outs Optional<2DTensorOf<[I32]>>:$result);
  let assemblyFormat = [{
    attr-dict `ins` `(` $input `,` $weights `:` type($input) `,` type($weights) `)`
    `outs` `(` $init `:` type($init) `)` (`->` type($result)^)?
  }];
}

def Tfmbs_DequantizeOp : Tfmbs_DestinationOp<"dequantize"> {
  let summary = "sums to floats: scale and bias";
  let description = [{
    out[m][n] = float(sums[m][n]) · (row_scales[m] · output_scales[n]) + bias[n], each operation rounded
    once, in the type of the scales (f32 or f64), then rounded to the destination's type. One output scale
    serves all outputs. A NaN scale makes its row or column NaN.

    ```mlir
    %y = tfmbs.dequantize ins(%acc, %s, %scale : tensor<?x60xi32>, tensor<?xf32>, tensor<1xf32>)
        bias(%b : tensor<60xf32>) outs(%y0 : tensor<?x60xf32>) -> tensor<?x60xf32>
    ```
  }];
  let arguments = (ins
    Tfmbs_I32Matrix:$sums,
    Tfmbs_ScaleVector:$row_scales,
    Tfmbs_ScaleVector:$output_scales,
    Optional<Tfmbs_FloatVector>:$bias,
    Tfmbs_FloatMatrix:$init,
    OptionalAttr<DictionaryAttr>:$telemetry);
  let results = (outs Optional<2DTensorOf<[F32, F64, BF16, F16]>>:$result);
  let assemblyFormat = [{
    attr-dict `ins` `(` $sums `,` $row_scales `,` $output_scales `:` type($sums) `,` type($row_scales) `,`
    type($output_scales) `)` (`bias` `(` $bias^ `:` type($bias) `)`)?
    `outs` `(` $init `:` type($init) `)` (`->` type($result)^)?
  }];
}

def Tfmbs_LinearOp : Tfmbs_DestinationOp<"linear"> {
  let summary = "a whole ternary layer: quantize, gemv, dequantize, and perhaps a ReLU";
  let description = [{
    What `tfmbs.quantize`, `tfmbs.gemv` and `tfmbs.dequantize` give one after the other, then with `relu`
    y < 0 ? 0 : y, which keeps a NaN and the sign of a zero, as torch's does. `tfmbs-fuse` makes it;
    `tfmbs-to-runtime` makes a call of it.

    ```mlir
    %y = tfmbs.linear ternary relu {tile_mask = 15 : ui64,
                                    telemetry = {layer = "fc1", sparsity = 0.3333, fused = ["relu"]}}
        ins(%x, %w, %scale : tensor<?x784xf32>, tensor<60x784x!tfmbs.trit>, tensor<1xf32>)
        bias(%b : tensor<60xf32>) outs(%y0 : tensor<?x60xf32>) -> tensor<?x60xf32>
    ```
  }];
  let arguments = !con((ins
    Tfmbs_FloatMatrix:$input,
    Tfmbs_WeightMatrix:$weights,
    Tfmbs_ScaleVector:$output_scales,
    Optional<Tfmbs_FloatVector>:$bias,
    Tfmbs_FloatMatrix:$init,
    Tfmbs_ActivationAttr:$activation,
    UnitAttr:$relu), layerAttributes);
  let results = (outs Optional<2DTensorOf<[F32, F64, BF16, F16]>>:$result);
  let assemblyFormat = [{
    $activation (`relu` $relu^)? attr-dict
    `ins` `(` $input `,` $weights `,` $output_scales `:` type($input) `,` type($weights) `,`
    type($output_scales) `)` (`bias` `(` $bias^ `:` type($bias) `)`)?
    `outs` `(` $init `:` type($init) `)` (`->` type($result)^)?
  }];
}

#endif  // TFMBS_MLIR_DIALECT_TFMBSOPS_TD
