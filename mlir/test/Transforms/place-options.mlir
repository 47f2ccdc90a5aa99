// RUN: not mlir-opt %s --load-dialect-plugin=%tfmbs_plugin \
// RUN:   --pass-pipeline="builtin.module(tfmbs-place{bank-depth=64 on-overflow=error})" 2>&1 \
// RUN:   | FileCheck %s --check-prefix=OVERFLOW
// RUN: not mlir-opt %s --load-dialect-plugin=%tfmbs_plugin \
// RUN:   --pass-pipeline="builtin.module(tfmbs-place{on-overflow=spill})" 2>&1 \
// RUN:   | FileCheck %s --check-prefix=MODE
// RUN: not mlir-opt %s --load-dialect-plugin=%tfmbs_plugin \
// RUN:   --pass-pipeline="builtin.module(tfmbs-place{tiles=65})" 2>&1 \
// RUN:   | FileCheck %s --check-prefix=GEOMETRY
// RUN: mlir-opt %s --load-dialect-plugin=%tfmbs_plugin \
// RUN:   --pass-pipeline="builtin.module(tfmbs-place{tiles=64})" | FileCheck %s --check-prefix=WIDE

// OVERFLOW: error: 'tfmbs.gemv' op layer 'large' does not fit: it needs 65 words of Bank A in each tile of its mask, and 64 are free in one piece
// MODE: error: on-overflow is 'spill'; allowed are stream and error
// GEOMETRY: error: {{.*}}65
// WIDE: tile_mask = 1 : ui64, weight_addr = 8192 : ui64
func.func @large(%q: memref<?x65xi8>, %a: memref<?x2xi32>) {
  %w = tfmbs.weights dense<1> : tensor<26xi8> -> memref<2x65x!tfmbs.trit>
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "large", sparsity = 0.5}}
      ins(%q, %w : memref<?x65xi8>, memref<2x65x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  return
}
