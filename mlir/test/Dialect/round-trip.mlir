// Text, generic text and bytecode, each read back, give the same module.
// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin %s -o %t.once
// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin %t.once -o %t.twice
// RUN: diff %t.once %t.twice
// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin --mlir-print-op-generic %s -o %t.generic
// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin %t.generic -o %t.back
// RUN: diff %t.once %t.back
// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin --emit-bytecode %s -o %t.mlirbc
// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin %t.mlirbc -o %t.read
// RUN: diff %t.once %t.read
// RUN: FileCheck %s < %t.once

// CHECK-LABEL: func.func @types(%{{.*}}: tensor<60x784x!tfmbs.trit>, %{{.*}}: memref<?x?x!tfmbs.trit, 1>, %{{.*}}: !tfmbs.trit)
func.func @types(%a: tensor<60x784x!tfmbs.trit>, %b: memref<?x?x!tfmbs.trit, 1>, %c: !tfmbs.trit) {
  return
}

// CHECK-LABEL: func.func @weights
func.func @weights() {
  // CHECK: tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>
  %0 = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>
  // CHECK: tfmbs.weights dense<-14> : tensor<2xi8> -> memref<5x2x!tfmbs.trit>
  %1 = tfmbs.weights dense<242> : tensor<2xi8> -> memref<5x2x!tfmbs.trit>
  // CHECK: tfmbs.weights dense_resource<fc1> : tensor<3xi8> -> tensor<3x5x!tfmbs.trit>
  %2 = tfmbs.weights dense_resource<fc1> : tensor<3xi8> -> tensor<3x5x!tfmbs.trit>
  // CHECK: tfmbs.weights dense<> : tensor<0xi8> -> tensor<0x5x!tfmbs.trit>
  %3 = tfmbs.weights dense<> : tensor<0xi8> -> tensor<0x5x!tfmbs.trit>
  // CHECK: tfmbs.weights {note = "kept"} dense<5> : tensor<1xi8> -> tensor<1x1x!tfmbs.trit>
  %4 = tfmbs.weights {note = "kept"} dense<5> : tensor<1xi8> -> tensor<1x1x!tfmbs.trit>
  return
}

// CHECK-LABEL: func.func @tensors
func.func @tensors(%x: tensor<?x3xbf16>, %w: tensor<2x3x!tfmbs.trit>, %c: tensor<2xf32>, %b: tensor<2xf64>,
                   %q0: tensor<?x3xi8>, %s0: tensor<?xf32>, %a0: tensor<?x2xi32>, %y0: tensor<?x2xf16>) {
  // CHECK: %[[Q:.*]], %[[S:.*]] = tfmbs.quantize int8 ins(%{{.*}} : tensor<?x3xbf16>) outs(%{{.*}}, %{{.*}} : tensor<?x3xi8>, tensor<?xf32>) -> tensor<?x3xi8>, tensor<?xf32>
  %q, %s = tfmbs.quantize int8 ins(%x : tensor<?x3xbf16>) outs(%q0, %s0 : tensor<?x3xi8>, tensor<?xf32>) -> tensor<?x3xi8>, tensor<?xf32>
  // CHECK: %[[A:.*]] = tfmbs.gemv {telemetry = {layer = "fc1", mine = [1, "two"], sparsity = 3.333000e-01 : f64}, tile_mask = 18446744073709551615 : ui64, weight_addr = 4096 : ui64} ins(%[[Q]], %{{.*}} : tensor<?x3xi8>, tensor<2x3x!tfmbs.trit>) outs(%{{.*}} : tensor<?x2xi32>) -> tensor<?x2xi32>
  %a = tfmbs.gemv {tile_mask = 18446744073709551615 : ui64, weight_addr = 4096 : ui64, telemetry = {layer = "fc1", sparsity = 0.3333, mine = [1, "two"]}}
      ins(%q, %w : tensor<?x3xi8>, tensor<2x3x!tfmbs.trit>) outs(%a0 : tensor<?x2xi32>) -> tensor<?x2xi32>
  // CHECK: tfmbs.dequantize {telemetry = {layer = "fc1", sparsity = 0.000000e+00 : f64}} ins(%[[A]], %[[S]], %{{.*}} : tensor<?x2xi32>, tensor<?xf32>, tensor<2xf32>) bias(%{{.*}} : tensor<2xf64>) outs(%{{.*}} : tensor<?x2xf16>) -> tensor<?x2xf16>
  %y = tfmbs.dequantize {telemetry = {layer = "fc1", sparsity = 0.0}}
      ins(%a, %s, %c : tensor<?x2xi32>, tensor<?xf32>, tensor<2xf32>) bias(%b : tensor<2xf64>) outs(%y0 : tensor<?x2xf16>) -> tensor<?x2xf16>
  // CHECK: tfmbs.linear int8 relu {{.*}} bias(
  %z = tfmbs.linear int8 relu {tile_mask = 1 : ui64, telemetry = {layer = "fc1", sparsity = 1.0}}
      ins(%x, %w, %c : tensor<?x3xbf16>, tensor<2x3x!tfmbs.trit>, tensor<2xf32>) bias(%b : tensor<2xf64>) outs(%y0 : tensor<?x2xf16>) -> tensor<?x2xf16>
  // CHECK: tfmbs.linear ternary {telemetry
  // CHECK-NOT: bias
  %v = tfmbs.linear ternary {tile_mask = 1 : ui64, telemetry = {layer = "fc1", sparsity = 1.0}}
      ins(%x, %w, %c : tensor<?x3xbf16>, tensor<2x3x!tfmbs.trit>, tensor<2xf32>) outs(%y0 : tensor<?x2xf16>) -> tensor<?x2xf16>
  return
}

// CHECK-LABEL: func.func @memrefs
func.func @memrefs(%x: memref<?x3xf64, strided<[?, 1], offset: ?>>, %w: memref<2x3xi8>, %c: memref<1xf64>,
                   %q: memref<?x3xi8>, %s: memref<?xf64>, %a: memref<?x2xi32>, %y: memref<?x2xf64>) {
  // CHECK: tfmbs.quantize ternary ins(%{{.*}} : memref<?x3xf64, strided<[?, 1], offset: ?>>) outs(%{{.*}}, %{{.*}} : memref<?x3xi8>, memref<?xf64>){{$}}
  tfmbs.quantize ternary ins(%x : memref<?x3xf64, strided<[?, 1], offset: ?>>) outs(%q, %s : memref<?x3xi8>, memref<?xf64>)
  // CHECK: tfmbs.gemv {{.*}} outs(%{{.*}} : memref<?x2xi32>){{$}}
  tfmbs.gemv {tile_mask = 2 : ui64, telemetry = {layer = "fc1", sparsity = 0.5}} ins(%q, %w : memref<?x3xi8>, memref<2x3xi8>) outs(%a : memref<?x2xi32>)
  // CHECK: tfmbs.dequantize {{.*}} outs(%{{.*}} : memref<?x2xf64>){{$}}
  tfmbs.dequantize ins(%a, %s, %c : memref<?x2xi32>, memref<?xf64>, memref<1xf64>) outs(%y : memref<?x2xf64>)
  // CHECK: tfmbs.linear ternary relu {{.*}} outs(%{{.*}} : memref<?x2xf64>){{$}}
  tfmbs.linear ternary relu {tile_mask = 2 : ui64, telemetry = {layer = "fc1", sparsity = 0.5}}
      ins(%x, %w, %c : memref<?x3xf64, strided<[?, 1], offset: ?>>, memref<2x3xi8>, memref<1xf64>) outs(%y : memref<?x2xf64>)
  return
}

{-# dialect_resources: { builtin: { fc1: "0x0100000005F200" } } #-}
