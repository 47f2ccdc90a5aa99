// RUN: mlir-opt %s --load-dialect-plugin=%tfmbs_plugin --split-input-file \
// RUN:   --pass-pipeline="builtin.module(tfmbs-fuse)" | FileCheck %s

#id = affine_map<(d0, d1) -> (d0, d1)>

// Quantize, gemv, dequantize and ReLU are one op; telemetry is joined, and what contradicts the
// gemv's keeps its owner's name.
// CHECK-LABEL: func.func @whole(
// CHECK-SAME: %[[X:.*]]: tensor<4x3xf32>, %[[B:.*]]: tensor<2xf32>
// CHECK: %[[W:.*]] = tfmbs.weights
// CHECK: %[[Y:.*]] = tfmbs.linear ternary relu {
// CHECK-SAME: telemetry = {act.sparsity = 5.000000e-01 : f64, first = 1 : i64, fused = ["quantize", "dequantize", "act"], layer = "fc1", sparsity = 3.333000e-01 : f64}
// CHECK-SAME: tile_mask = 3 : ui64, weight_addr = 4096 : ui64
// CHECK-SAME: ins(%[[X]], %[[W]], %{{.*}} : tensor<4x3xf32>, tensor<2x3x!tfmbs.trit>, tensor<1xf32>)
// CHECK-SAME: bias(%[[B]] : tensor<2xf32>)
// CHECK-NOT: linalg
// CHECK-NOT: tfmbs.
// CHECK: return %[[Y]]
func.func @whole(%x: tensor<4x3xf32>, %b: tensor<2xf32>) -> tensor<4x2xf32> {
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>
  %scale = arith.constant dense<1.0> : tensor<1xf32>
  %zero = arith.constant 0.0 : f32
  %q0 = tensor.empty() : tensor<4x3xi8>
  %s0 = tensor.empty() : tensor<4xf32>
  %a0 = tensor.empty() : tensor<4x2xi32>
  %y0 = tensor.empty() : tensor<4x2xf32>
  %q, %s = tfmbs.quantize ternary ins(%x : tensor<4x3xf32>)
      outs(%q0, %s0 : tensor<4x3xi8>, tensor<4xf32>) -> tensor<4x3xi8>, tensor<4xf32>
  %a = tfmbs.gemv {tile_mask = 3 : ui64, weight_addr = 4096 : ui64,
                   telemetry = {layer = "fc1", sparsity = 0.3333, first = 1}}
      ins(%q, %w : tensor<4x3xi8>, tensor<2x3x!tfmbs.trit>)
      outs(%a0 : tensor<4x2xi32>) -> tensor<4x2xi32>
  %y = tfmbs.dequantize {telemetry = {layer = "fc1", sparsity = 0.3333}}
      ins(%a, %s, %scale : tensor<4x2xi32>, tensor<4xf32>, tensor<1xf32>)
      bias(%b : tensor<2xf32>) outs(%y0 : tensor<4x2xf32>) -> tensor<4x2xf32>
  %r = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}
      ins(%y : tensor<4x2xf32>) outs(%y0 : tensor<4x2xf32>)
      attrs = {telemetry = {layer = "act", sparsity = 0.5}} {
  ^bb0(%e: f32, %o: f32):
    %m = arith.maximumf %e, %zero : f32
    linalg.yield %m : f32
  } -> tensor<4x2xf32>
  return %r : tensor<4x2xf32>
}

// -----

// Sums that somebody else reads keep their gemv.
// CHECK-LABEL: func.func @sums_are_read
// CHECK-NOT: tfmbs.linear
// CHECK: tfmbs.quantize
// CHECK: tfmbs.gemv
// CHECK: tfmbs.dequantize
func.func @sums_are_read(%x: tensor<4x3xf32>, %q0: tensor<4x3xi8>, %s0: tensor<4xf32>,
    %a0: tensor<4x2xi32>, %y0: tensor<4x2xf32>) -> (tensor<4x2xf32>, tensor<4x2xi32>) {
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>
  %scale = arith.constant dense<1.0> : tensor<1xf32>
  %q, %s = tfmbs.quantize ternary ins(%x : tensor<4x3xf32>)
      outs(%q0, %s0 : tensor<4x3xi8>, tensor<4xf32>) -> tensor<4x3xi8>, tensor<4xf32>
  %a = tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc1", sparsity = 0.5}}
      ins(%q, %w : tensor<4x3xi8>, tensor<2x3x!tfmbs.trit>)
      outs(%a0 : tensor<4x2xi32>) -> tensor<4x2xi32>
  %y = tfmbs.dequantize ins(%a, %s, %scale : tensor<4x2xi32>, tensor<4xf32>, tensor<1xf32>)
      outs(%y0 : tensor<4x2xf32>) -> tensor<4x2xf32>
  return %y, %a : tensor<4x2xf32>, tensor<4x2xi32>
}

// -----

// Values that somebody else reads keep their quantize, and the layer is fused all the same; of a
// result that somebody else reads only the ReLU stays outside.
// CHECK-LABEL: func.func @values_are_read
// CHECK: tfmbs.quantize int8
// CHECK: %[[Y:.*]] = tfmbs.linear int8 {telemetry = {fused = ["quantize", "dequantize"]
// CHECK: %[[R:.*]] = arith.maximumf %[[Y]]
// CHECK: return %{{.*}}, %[[Y]], %[[R]]
func.func @values_are_read(%x: tensor<4x3xf64>, %q0: tensor<4x3xi8>, %s0: tensor<4xf64>,
    %a0: tensor<4x2xi32>, %y0: tensor<4x2xf64>)
    -> (tensor<4x3xi8>, tensor<4x2xf64>, tensor<4x2xf64>) {
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>
  %scale = arith.constant dense<1.0> : tensor<1xf64>
  %zero = arith.constant dense<0.0> : tensor<4x2xf64>
  %q, %s = tfmbs.quantize int8 ins(%x : tensor<4x3xf64>)
      outs(%q0, %s0 : tensor<4x3xi8>, tensor<4xf64>) -> tensor<4x3xi8>, tensor<4xf64>
  %a = tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc1", sparsity = 0.5}}
      ins(%q, %w : tensor<4x3xi8>, tensor<2x3x!tfmbs.trit>)
      outs(%a0 : tensor<4x2xi32>) -> tensor<4x2xi32>
  %y = tfmbs.dequantize ins(%a, %s, %scale : tensor<4x2xi32>, tensor<4xf64>, tensor<1xf64>)
      outs(%y0 : tensor<4x2xf64>) -> tensor<4x2xf64>
  %r = arith.maximumf %y, %zero : tensor<4x2xf64>
  return %q, %y, %r : tensor<4x3xi8>, tensor<4x2xf64>, tensor<4x2xf64>
}

// -----

// Row scales of another quantize are no chain.
// CHECK-LABEL: func.func @other_scales
// CHECK-NOT: tfmbs.linear
// CHECK: return
func.func @other_scales(%x: tensor<4x3xf32>, %other: tensor<4xf32>, %q0: tensor<4x3xi8>,
    %s0: tensor<4xf32>, %a0: tensor<4x2xi32>, %y0: tensor<4x2xf32>) -> tensor<4x2xf32> {
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>
  %scale = arith.constant dense<1.0> : tensor<1xf32>
  %q, %s = tfmbs.quantize ternary ins(%x : tensor<4x3xf32>)
      outs(%q0, %s0 : tensor<4x3xi8>, tensor<4xf32>) -> tensor<4x3xi8>, tensor<4xf32>
  %a = tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc1", sparsity = 0.5}}
      ins(%q, %w : tensor<4x3xi8>, tensor<2x3x!tfmbs.trit>)
      outs(%a0 : tensor<4x2xi32>) -> tensor<4x2xi32>
  %y = tfmbs.dequantize ins(%a, %other, %scale : tensor<4x2xi32>, tensor<4xf32>, tensor<1xf32>)
      outs(%y0 : tensor<4x2xf32>) -> tensor<4x2xf32>
  return %y : tensor<4x2xf32>
}
