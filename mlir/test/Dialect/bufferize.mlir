// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin --pass-pipeline='builtin.module(one-shot-bufferize{bufferize-function-boundaries function-boundary-type-conversion=identity-layout-map})' -split-input-file %s | FileCheck %s

// Each op becomes itself on buffers, written in place; weights stay a constant.

// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    %[[X:.*]]: memref<?x3xf32>, %[[SCALE:.*]]: memref<1xf32>, %[[B:.*]]: memref<2xf32>
// CHECK:         %[[W:.*]] = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> memref<2x3x!tfmbs.trit>
// CHECK-DAG:     %[[Q:.*]] = memref.alloc({{.*}} : memref<?x3xi8>
// CHECK-DAG:     %[[S:.*]] = memref.alloc({{.*}} : memref<?xf32>
// CHECK:         tfmbs.quantize int8 ins(%[[X]] : memref<?x3xf32>) outs(%[[Q]], %[[S]] : memref<?x3xi8>, memref<?xf32>)
// CHECK-NOT:     ->
// CHECK:         %[[A:.*]] = memref.alloc({{.*}} : memref<?x2xi32>
// CHECK:         tfmbs.gemv {telemetry = {layer = "fc1", sparsity = 5.000000e-01 : f64}, tile_mask = 3 : ui64, weight_addr = 64 : ui64} ins(%[[Q]], %[[W]] : memref<?x3xi8>, memref<2x3x!tfmbs.trit>) outs(%[[A]] : memref<?x2xi32>)
// CHECK:         %[[Y:.*]] = memref.alloc({{.*}} : memref<?x2xf32>
// CHECK:         tfmbs.dequantize ins(%[[A]], %[[S]], %[[SCALE]] : memref<?x2xi32>, memref<?xf32>, memref<1xf32>) bias(%[[B]] : memref<2xf32>) outs(%[[Y]] : memref<?x2xf32>)
// CHECK-NOT:     memref.copy
// CHECK:         return %[[Y]]
func.func @layer(%x: tensor<?x3xf32>, %scale: tensor<1xf32>, %b: tensor<2xf32>) -> tensor<?x2xf32> {
  %zero = arith.constant 0 : index
  %m = tensor.dim %x, %zero : tensor<?x3xf32>
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>
  %q0 = tensor.empty(%m) : tensor<?x3xi8>
  %s0 = tensor.empty(%m) : tensor<?xf32>
  %q, %s = tfmbs.quantize int8 ins(%x : tensor<?x3xf32>)
      outs(%q0, %s0 : tensor<?x3xi8>, tensor<?xf32>) -> tensor<?x3xi8>, tensor<?xf32>
  %a0 = tensor.empty(%m) : tensor<?x2xi32>
  %acc = tfmbs.gemv {tile_mask = 3 : ui64, weight_addr = 64 : ui64, telemetry = {layer = "fc1", sparsity = 0.5}}
      ins(%q, %w : tensor<?x3xi8>, tensor<2x3x!tfmbs.trit>) outs(%a0 : tensor<?x2xi32>) -> tensor<?x2xi32>
  %y0 = tensor.empty(%m) : tensor<?x2xf32>
  %y = tfmbs.dequantize ins(%acc, %s, %scale : tensor<?x2xi32>, tensor<?xf32>, tensor<1xf32>)
      bias(%b : tensor<2xf32>) outs(%y0 : tensor<?x2xf32>) -> tensor<?x2xf32>
  return %y : tensor<?x2xf32>
}

// -----

// The input is read while the destination is written, so they cannot share a buffer.

// CHECK-LABEL: func.func @in_place(
// CHECK-SAME:    %[[X:.*]]: memref<4x2xf32>, %[[SCALE:.*]]: memref<1xf32>
// CHECK:         %[[Y:.*]] = memref.alloc() {{.*}} : memref<4x2xf32>
// CHECK-NOT:     memref.copy
// CHECK:         tfmbs.linear ternary relu {{.*}} ins(%[[X]], %{{.*}}, %[[SCALE]] : memref<4x2xf32>, memref<2x2x!tfmbs.trit>, memref<1xf32>) outs(%[[Y]] : memref<4x2xf32>)
// CHECK:         return %[[Y]]
func.func @in_place(%x: tensor<4x2xf32>, %scale: tensor<1xf32>) -> tensor<4x2xf32> {
  %w = tfmbs.weights dense<5> : tensor<1xi8> -> tensor<2x2x!tfmbs.trit>
  %y = tfmbs.linear ternary relu {tile_mask = 1 : ui64, telemetry = {layer = "fc1", sparsity = 0.5}}
      ins(%x, %w, %scale : tensor<4x2xf32>, tensor<2x2x!tfmbs.trit>, tensor<1xf32>)
      outs(%x : tensor<4x2xf32>) -> tensor<4x2xf32>
  return %y : tensor<4x2xf32>
}

// -----

// Weights are constant memory: a write makes a copy first.

// CHECK-LABEL: func.func @written(
// CHECK:         %[[W:.*]] = tfmbs.weights
// CHECK:         %[[COPY:.*]] = memref.alloc() {{.*}} : memref<2x2x!tfmbs.trit>
// CHECK:         memref.copy %[[W]], %[[COPY]]
// CHECK:         memref.store %{{.*}}, %[[COPY]]
func.func @written(%trit: !tfmbs.trit, %i: index) -> tensor<2x2x!tfmbs.trit> {
  %w = tfmbs.weights dense<5> : tensor<1xi8> -> tensor<2x2x!tfmbs.trit>
  %changed = tensor.insert %trit into %w[%i, %i] : tensor<2x2x!tfmbs.trit>
  return %changed : tensor<2x2x!tfmbs.trit>
}
