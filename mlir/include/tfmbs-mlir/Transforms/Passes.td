// The passes.
#ifndef TFMBS_MLIR_TRANSFORMS_PASSES_TD
#define TFMBS_MLIR_TRANSFORMS_PASSES_TD

include "mlir/Pass/PassBase.td"

def TfmbsToLinalg : Pass<"tfmbs-to-linalg", "::mlir::ModuleOp"> {
  let summary = "Lowers the dialect to linalg, arith, math, tensor and memref";
  let description = [{
    `tfmbs.gemv` becomes `linalg.matmul` of i8 by i8 into i32 on a destination filled with zero, and keeps
    `telemetry`, `tile_mask` and `weight_addr`; the other ops become `linalg.generic`. Packed weights
    become a constant of K x N i8 (on memrefs a private global), matrices of i8 go through
    `linalg.transpose`. The numbers are those of `TFMBSLinear`, operation by operation.

    No op and no type of the dialect is left, or the pass fails with a diagnostic at what stays:
    packed weights that are passed around, say as an argument, cannot be lowered. On memrefs a
    `tfmbs.linear` allocates what lies between its parts, which MLIR's buffer deallocation frees.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::linalg::LinalgDialect", "::mlir::math::MathDialect",
    "::mlir::memref::MemRefDialect", "::mlir::tensor::TensorDialect"];
}

def TfmbsFuse : Pass<"tfmbs-fuse", "::mlir::ModuleOp"> {
  let summary = "Makes one tfmbs.linear of quantize, gemv, dequantize and a ReLU";
  let description = [{
    The telemetry of all of them is joined: the gemv's; every other entry that one of them has, and where it contradicts,
    under `<name>.<key>`; and `fused`, the names of what was joined (`quantize`, `dequantize`, `relu`, or the layer that
    an op's own telemetry names). Sums that other ops read keep their three ops; quantized values that other ops
    read keep their `tfmbs.quantize` beside the fused op; a result that other ops read keeps its ReLU. On tensors.

    A ReLU is `linalg.generic` on each element, `arith.maximumf`, or `arith.cmpf` and `arith.select`, in any form that keeps
    a NaN. They differ in the sign of a zero; `tfmbs.linear` keeps -0, as torch does.
  }];
  let dependentDialects = ["::mlir::arith::ArithDialect", "::mlir::tensor::TensorDialect"];
}

def TfmbsPlace : Pass<"tfmbs-place", "::mlir::ModuleOp"> {
  let summary = "Gives each layer its tile mask and its address in Bank A";
  let description = [{
    Given addresses are entered first and kept. The other layers are placed in the order in which their ops stand in the
    module, by the runtime's own allocator, so that what fits lies where a device would put it at the first forward.
    Ops of one layer (the same name, weights and tile mask) share a place.

    What does not fit gets no address, `placement = "streamed"` in its telemetry, and a remark; with `on-overflow=error`
    it is an error that names the layer, the words it needs and those that are free. On its tiles a window stays free, and later layers
    that would take it stream too: half a bank, or what the layer takes where that is less; where given addresses
    leave less than that, 15 depths; where they leave less still, an error. The device lets such layers take turns in it.
  }];
  let options = [
    Option<"tiles", "tiles", "uint64_t", "4", "Tiles of the fabric">,
    Option<"lanes", "lanes", "uint64_t", "15", "Lanes a tile">,
    Option<"bank_depth", "bank-depth", "uint64_t", "1024", "Depths a bank holds">,
    Option<"on_overflow", "on-overflow", "std::string", "\"stream\"",
           "What happens to a layer that does not fit: stream or error">];
}

def TfmbsToRuntime : Pass<"tfmbs-to-runtime", "::mlir::ModuleOp"> {
  let summary = "Makes calls of libtfmbs's C interface of tfmbs.linear on memrefs";
  let description = [{
    Each layer gets a slot, a global pointer that is null at first, and its name, PT-5 bytes and scales as constants; `tfmbs.linear` becomes
    `tfmbs_layer_define` and `tfmbs_layer_forward`, and a ReLU after it, in a private function whose call carries
    telemetry, tile mask and address. The module gets a function `tfmbs_release` that releases every slot.

    Runs once, after `tfmbs-fuse` and bufferization, and before buffer deallocation, which frees the buffers that rows with gaps are
    copied through. Weights and output scales must be constants. A `tfmbs.gemv` that stays runs on no fabric: a warning.
  }];
  let options = [
    Option<"fabric", "fabric", "std::string", "\"\"",
           "The device's specification as text; empty: the process's default device">];
  let dependentDialects = [
    "::mlir::LLVM::LLVMDialect", "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect",
    "::mlir::linalg::LinalgDialect", "::mlir::memref::MemRefDialect"];
}

def TfmbsLowerCopies : Pass<"tfmbs-lower-copies", "::mlir::ModuleOp"> {
  let summary = "Makes loops of copies between buffers with gaps";
  let description = [{
    `memref.copy` of a strided buffer, as bufferization leaves it, becomes `linalg.copy`. Lowered to LLVM as it is, it
    calls a function of MLIR's own runner library, which a compiled module would have to bring.
  }];
  let dependentDialects = ["::mlir::linalg::LinalgDialect"];
}

def TfmbsReportTelemetry : Pass<"tfmbs-report-telemetry", "::mlir::ModuleOp"> {
  let summary = "Writes the telemetry of every op that carries it as JSON";
  let description = [{
    A list of objects with `layer`, `sparsity`, `tile_mask`, `weight_addr`, `in_features`, `out_features`, `op` (the
    op's name) and what else its telemetry holds, in program order; what is not known is left out. Ops of other dialects
    count too. Telemetry that is malformed is an error. The module stays as it is.
  }];
  let options = [
    Option<"output", "output", "std::string", "\"-\"", "A file, or - for standard output">];
}

#endif  // TFMBS_MLIR_TRANSFORMS_PASSES_TD
