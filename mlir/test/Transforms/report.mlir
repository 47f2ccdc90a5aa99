// RUN: mlir-opt %s --load-dialect-plugin=%tfmbs_plugin -o /dev/null \
// RUN:   --pass-pipeline="builtin.module(tfmbs-report-telemetry)" | FileCheck %s
// RUN: mlir-opt %s --load-dialect-plugin=%tfmbs_plugin -o /dev/null \
// RUN:   --pass-pipeline="builtin.module(tfmbs-report-telemetry{output=%t.json})"
// RUN: FileCheck %s < %t.json
// RUN: %python -c "import json, sys; assert len(json.load(open(sys.argv[1]))) == 3" %t.json
// RUN: not mlir-opt %s --load-dialect-plugin=%tfmbs_plugin -o /dev/null \
// RUN:   --pass-pipeline="builtin.module(tfmbs-report-telemetry{output=%t/no/such/file})" 2>&1 \
// RUN:   | FileCheck %s --check-prefix=UNWRITABLE
// UNWRITABLE: error: telemetry cannot be written: cannot open output file

// CHECK: [
// CHECK: "layer": "fc1",
// CHECK-NEXT: "sparsity": 0.3333,
// CHECK-NEXT: "tile_mask": 18446744073709551615,
// CHECK-NEXT: "weight_addr": 4096,
// CHECK-NEXT: "in_features": 3,
// CHECK-NEXT: "out_features": 2,
// CHECK-NEXT: "op": "tfmbs.gemv",
// CHECK-NEXT: "big": -7,
// CHECK-NEXT: "list": [
// CHECK-NEXT: "a\"b",
// CHECK-NEXT: true,
// CHECK-NEXT: null
// CHECK-NEXT: ],
// CHECK-NEXT: "map": {
// CHECK-NEXT: "k": 0.1
// CHECK: "type": "f32"
func.func @gemv(%q: memref<?x3xi8>, %a: memref<?x2xi32>) {
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> memref<2x3x!tfmbs.trit>
  tfmbs.gemv {tile_mask = 18446744073709551615 : ui64, weight_addr = 4096 : ui64,
      telemetry = {layer = "fc1", sparsity = 0.3333, big = -7 : i8,
                   list = ["a\22b", true, 0x7FC00000 : f32], map = {k = 0.1}, type = f32}}
      ins(%q, %w : memref<?x3xi8>, memref<2x3x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  return
}

// Lowered ops know their shape by their types.
// CHECK: "layer": "fc2",
// CHECK-NEXT: "sparsity": 0,
// CHECK-NEXT: "in_features": 8,
// CHECK-NEXT: "out_features": 5,
// CHECK-NEXT: "op": "linalg.matmul"
// CHECK-NEXT: }
func.func @matmul(%a: tensor<?x8xi8>, %b: tensor<8x5xi8>, %c: tensor<?x5xi32>) -> tensor<?x5xi32> {
  %y = linalg.matmul {telemetry = {layer = "fc2", sparsity = 0.0}}
      ins(%a, %b : tensor<?x8xi8>, tensor<8x5xi8>) outs(%c : tensor<?x5xi32>) -> tensor<?x5xi32>
  return %y : tensor<?x5xi32>
}

// CHECK: "layer": "fc3",
// CHECK: "in_features": 8,
// CHECK-NEXT: "out_features": 5,
// CHECK-NEXT: "op": "func.call"
func.func private @layer(memref<?x8xf32>, memref<?x5xf32>)
func.func @call(%x: memref<?x8xf32>, %y: memref<?x5xf32>) {
  func.call @layer(%x, %y) {telemetry = {layer = "fc3", sparsity = 0.5}}
      : (memref<?x8xf32>, memref<?x5xf32>) -> ()
  return
}
