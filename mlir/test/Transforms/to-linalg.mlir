// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin --pass-pipeline='builtin.module(tfmbs-to-linalg)' -split-input-file %s | FileCheck %s
// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin --pass-pipeline='builtin.module(tfmbs-to-linalg)' -split-input-file %s | FileCheck %s --check-prefix=NONE
// NONE-NOT: tfmbs.

// The matmul overwrites: its destination is filled with zero. Weights are unpacked, K x N.

// CHECK-LABEL: func.func @gemv(
// CHECK-SAME:    %[[Q:.*]]: tensor<?x3xi8>, %[[INIT:.*]]: tensor<?x2xi32>)
// CHECK-DAG:     %[[W:.*]] = arith.constant dense<{{\[}}[-1, 0], [1, 0], [0, -1]]> : tensor<3x2xi8>
// CHECK-DAG:     %[[ZERO:.*]] = arith.constant 0 : i32
// CHECK:         %[[FILLED:.*]] = linalg.fill ins(%[[ZERO]] : i32) outs(%[[INIT]] : tensor<?x2xi32>) -> tensor<?x2xi32>
// CHECK:         %[[SUMS:.*]] = linalg.matmul {telemetry = {layer = "fc1", mine = true, sparsity = 5.000000e-01 : f64}, tile_mask = 15 : ui64, weight_addr = 4096 : ui64} ins(%[[Q]], %[[W]] : tensor<?x3xi8>, tensor<3x2xi8>) outs(%[[FILLED]] : tensor<?x2xi32>) -> tensor<?x2xi32>
// CHECK:         return %[[SUMS]]
func.func @gemv(%q: tensor<?x3xi8>, %init: tensor<?x2xi32>) -> tensor<?x2xi32> {
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>
  %a = tfmbs.gemv {tile_mask = 15 : ui64, weight_addr = 4096 : ui64, telemetry = {layer = "fc1", sparsity = 0.5, mine = true}}
      ins(%q, %w : tensor<?x3xi8>, tensor<2x3x!tfmbs.trit>) outs(%init : tensor<?x2xi32>) -> tensor<?x2xi32>
  return %a : tensor<?x2xi32>
}

// -----

// Two products by one matrix share its constant; on memrefs it is a global, whose name is free.

// CHECK:         memref.global "private" constant @[[$WEIGHTS:__tfmbs_weights_[0-9]+]] : memref<3x2xi8> = dense<{{\[}}[-1, 0], [1, 0], [0, -1]]> {alignment = 64 : i64}
// CHECK-NOT:     memref.global
// CHECK:         func.func private @__tfmbs_weights()
// CHECK-LABEL: func.func @memrefs(
// CHECK-SAME:    %[[Q:.*]]: memref<?x3xi8>, %[[A:.*]]: memref<?x2xi32>, %[[B:.*]]: memref<?x2xi32>)
// CHECK-NEXT:    %[[GLOBAL:.*]] = memref.get_global @[[$WEIGHTS]] : memref<3x2xi8>
// CHECK:         linalg.fill ins(%{{.*}} : i32) outs(%[[A]] : memref<?x2xi32>)
// CHECK-NEXT:    linalg.matmul {{.*}} ins(%[[Q]], %[[GLOBAL]] : memref<?x3xi8>, memref<3x2xi8>) outs(%[[A]] : memref<?x2xi32>)
// CHECK:         linalg.fill ins(%{{.*}} : i32) outs(%[[B]] : memref<?x2xi32>)
// CHECK-NEXT:    linalg.matmul {{.*}} ins(%[[Q]], %[[GLOBAL]] : memref<?x3xi8>, memref<3x2xi8>) outs(%[[B]] : memref<?x2xi32>)
// CHECK-NEXT:    return
func.func private @__tfmbs_weights()
func.func @memrefs(%q: memref<?x3xi8>, %a: memref<?x2xi32>, %b: memref<?x2xi32>) {
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> memref<2x3x!tfmbs.trit>
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc1", sparsity = 0.5}}
      ins(%q, %w : memref<?x3xi8>, memref<2x3x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc1", sparsity = 0.5}}
      ins(%q, %w : memref<?x3xi8>, memref<2x3x!tfmbs.trit>) outs(%b : memref<?x2xi32>)
  return
}

// -----

// Weights that a program computes are transposed.

// CHECK-LABEL: func.func @computed(
// CHECK-SAME:    %[[Q:.*]]: tensor<4x3xi8>, %[[W:.*]]: tensor<2x3xi8>
// CHECK:         %[[EMPTY:.*]] = tensor.empty() : tensor<3x2xi8>
// CHECK:         %[[T:.*]] = linalg.transpose ins(%[[W]] : tensor<2x3xi8>) outs(%[[EMPTY]] : tensor<3x2xi8>) permutation = [1, 0]
// CHECK:         linalg.matmul {telemetry = {layer = "fc1", sparsity = 5.000000e-01 : f64}, tile_mask = 1 : ui64} ins(%[[Q]], %[[T]] : tensor<4x3xi8>, tensor<3x2xi8>)
func.func @computed(%q: tensor<4x3xi8>, %w: tensor<2x3xi8>, %init: tensor<4x2xi32>) -> tensor<4x2xi32> {
  %a = tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc1", sparsity = 0.5}}
      ins(%q, %w : tensor<4x3xi8>, tensor<2x3xi8>) outs(%init : tensor<4x2xi32>) -> tensor<4x2xi32>
  return %a : tensor<4x2xi32>
}

// -----

// Large matrices are resources, named after what they come from.

// CHECK-LABEL: func.func @large(
// CHECK:         arith.constant dense_resource<fc1_i8> : tensor<20x4xi8>
// CHECK:         fc1_i8: "0x40000000FF
func.func @large(%q: tensor<?x20xi8>, %init: tensor<?x4xi32>) -> tensor<?x4xi32> {
  %w = tfmbs.weights dense_resource<fc1> : tensor<16xi8> -> tensor<4x20x!tfmbs.trit>
  %a = tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc1", sparsity = 0.5}}
      ins(%q, %w : tensor<?x20xi8>, tensor<4x20x!tfmbs.trit>) outs(%init : tensor<?x4xi32>) -> tensor<?x4xi32>
  return %a : tensor<?x4xi32>
}

{-# dialect_resources: { builtin: { fc1: "0x0100000002000000000000000000000000000000" } } #-}

// -----

// bf16 is computed in f32 and rounded at the end; one output scale serves all; ReLU keeps a NaN.

// CHECK-DAG:   #[[$ELEMENT:.*]] = affine_map<(d0, d1) -> (d0, d1)>
// CHECK-DAG:   #[[$ROW:.*]] = affine_map<(d0, d1) -> (d0)>
// CHECK-DAG:   #[[$FIRST:.*]] = affine_map<(d0, d1) -> (0)>
// CHECK-DAG:   #[[$COLUMN:.*]] = affine_map<(d0, d1) -> (d1)>
// CHECK-LABEL: func.func @linear(
// CHECK-SAME:    %[[X:.*]]: tensor<?x3xbf16>, %[[C:.*]]: tensor<1xf32>, %[[B:.*]]: tensor<2xbf16>, %[[INIT:.*]]: tensor<?x2xbf16>)
// CHECK:         %[[M:.*]] = tensor.dim %[[X]]
// CHECK-DAG:     %[[Q0:.*]] = tensor.empty(%[[M]]) : tensor<?x3xi8>
// CHECK-DAG:     %[[S0:.*]] = tensor.empty(%[[M]]) : tensor<?xf32>
// CHECK-DAG:     %[[A0:.*]] = tensor.empty(%[[M]]) : tensor<?x2xi32>
// CHECK:         linalg.generic {indexing_maps = [#[[$ELEMENT]], #[[$ROW]]], iterator_types = ["parallel", "reduction"]}
// CHECK:           arith.extf %{{.*}} : bf16 to f32
// CHECK:           math.absf
// CHECK:           arith.maximumf
// CHECK:         math.roundeven
// CHECK:         arith.fptosi %{{.*}} : f32 to i8
// CHECK:         linalg.matmul {telemetry = {fused = ["relu"], layer = "fc1", sparsity = 5.000000e-01 : f64}, tile_mask = 1 : ui64}
// CHECK:         linalg.generic {indexing_maps = [#[[$ELEMENT]], #[[$ROW]], #[[$FIRST]], #[[$COLUMN]], #[[$ELEMENT]]], iterator_types = ["parallel", "parallel"]} {{.*}} outs(%[[INIT]] : tensor<?x2xbf16>)
// CHECK:           %[[SUM:.*]] = arith.sitofp %{{.*}} : i32 to f32
// CHECK:           %[[SCALE:.*]] = arith.mulf %{{.*}}, %{{.*}} : f32
// CHECK:           %[[PRODUCT:.*]] = arith.mulf %[[SUM]], %[[SCALE]] : f32
// CHECK:           %[[BIAS:.*]] = arith.extf %{{.*}} : bf16 to f32
// CHECK:           %[[Y:.*]] = arith.addf %[[PRODUCT]], %[[BIAS]] : f32
// CHECK:           %[[ROUNDED:.*]] = arith.truncf %[[Y]] : f32 to bf16
// CHECK:           %[[BELOW:.*]] = arith.cmpf olt, %[[ROUNDED]], %{{.*}} : bf16
// CHECK:           arith.select %[[BELOW]], %{{.*}}, %[[ROUNDED]] : bf16
func.func @linear(%x: tensor<?x3xbf16>, %c: tensor<1xf32>, %b: tensor<2xbf16>, %init: tensor<?x2xbf16>) -> tensor<?x2xbf16> {
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>
  %y = tfmbs.linear int8 relu {tile_mask = 1 : ui64, telemetry = {layer = "fc1", sparsity = 0.5, fused = ["relu"]}}
      ins(%x, %w, %c : tensor<?x3xbf16>, tensor<2x3x!tfmbs.trit>, tensor<1xf32>) bias(%b : tensor<2xbf16>)
      outs(%init : tensor<?x2xbf16>) -> tensor<?x2xbf16>
  return %y : tensor<?x2xbf16>
}

// -----

// No weights, no rows: nothing special.

// CHECK-LABEL: func.func @nothing(
// CHECK:         arith.constant dense<> : tensor<0x2xi8>
// CHECK:         linalg.matmul
func.func @nothing(%q: tensor<0x0xi8>, %init: tensor<0x2xi32>) -> tensor<0x2xi32> {
  %unread = tfmbs.weights dense<5> : tensor<1xi8> -> tensor<1x1x!tfmbs.trit>
  %w = tfmbs.weights dense<> : tensor<0xi8> -> tensor<2x0x!tfmbs.trit>
  %a = tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc1", sparsity = 0.0}}
      ins(%q, %w : tensor<0x0xi8>, tensor<2x0x!tfmbs.trit>) outs(%init : tensor<0x2xi32>) -> tensor<0x2xi32>
  return %a : tensor<0x2xi32>
}
