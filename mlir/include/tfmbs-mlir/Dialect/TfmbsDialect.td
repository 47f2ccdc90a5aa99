// The dialect, its element type and its enumerations.
#ifndef TFMBS_MLIR_DIALECT_TFMBSDIALECT_TD
#define TFMBS_MLIR_DIALECT_TFMBSDIALECT_TD

include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/BuiltinTypeInterfaces.td"
include "mlir/IR/DialectBase.td"
include "mlir/IR/EnumAttr.td"

def Tfmbs_Dialect : Dialect {
  let name = "tfmbs";
  let cppNamespace = "::tfmbs::ir";
  let summary = "Ternary linear layers with placement and telemetry";
  let description = [{
    A ternary linear layer, y = (quantized x · trits) · scale + bias, as ops whose lowering gives
    `TFMBSLinear`'s numbers, and the attributes by which the Ternary Fabric's runtime knows it:

    - `tile_mask`, an unsigned 64-bit integer, bit t for tile t;
    - `weight_addr`, where it is known: a byte address in tile 0's Bank A;
    - `telemetry = {layer = "fc1", sparsity = 0.3333}`: the layer's name and the share of zeros
      among its trits, to four decimals. Further entries are the user's, and are kept.

    They stay on what an op is lowered to. The same ops stand on tensors and, after bufferization,
    on memrefs; they are destination-style, and overwrite their destinations.
  }];
  let useDefaultTypePrinterParser = 1;
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::tensor::TensorDialect"];
}

def Tfmbs_TritType : TypeDef<Tfmbs_Dialect, "Trit",
    [DeclareTypeInterfaceMethods<MemRefElementTypeInterface>]> {
  let mnemonic = "trit";
  let summary = "-1, 0 or +1";
  let description = [{
    An element type of tensors and memrefs. Such a tensor is packed as PT-5 (five trits a byte, the first in the
    lowest digit): one stream over the whole tensor in row-major order.

    ```mlir
    tensor<60x784x!tfmbs.trit>
    ```
  }];
}

def Tfmbs_ActivationAttr : I32EnumAttr<"Activation", "how activations are quantized", [
    I32EnumAttrCase<"Ternary", 0, "ternary">,
    I32EnumAttrCase<"Int8", 1, "int8">,
  ]> {
  let cppNamespace = "::tfmbs::ir";
}

#endif  // TFMBS_MLIR_DIALECT_TFMBSDIALECT_TD
