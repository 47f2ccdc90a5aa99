// RUN: mlir-opt %s --load-dialect-plugin=%tfmbs_plugin --split-input-file --verify-diagnostics \
// RUN:   --pass-pipeline="builtin.module(tfmbs-place{tiles=2 lanes=15 bank-depth=64})" | FileCheck %s

// First fit in program order; layers on other tiles may lie at the same words; what was given is
// kept, and automatic layers lie around it; uses of one layer share its place.
// CHECK-LABEL: func.func @order
// CHECK: layer = "a"{{.*}} tile_mask = 1 : ui64, weight_addr = 4096 : ui64
// CHECK: layer = "b"{{.*}} tile_mask = 2 : ui64, weight_addr = 4096 : ui64
// CHECK: layer = "given"{{.*}} tile_mask = 3 : ui64, weight_addr = 4156 : ui64
// CHECK: layer = "both"{{.*}} tile_mask = 3 : ui64, weight_addr = 4196 : ui64
// CHECK: layer = "a"{{.*}} tile_mask = 1 : ui64, weight_addr = 4096 : ui64
func.func @order(%q: memref<?x10xi8>, %a: memref<?x2xi32>) {
  %w = tfmbs.weights dense<1> : tensor<4xi8> -> memref<2x10x!tfmbs.trit>
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "a", sparsity = 0.5}}
      ins(%q, %w : memref<?x10xi8>, memref<2x10x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  tfmbs.gemv {tile_mask = 2 : ui64, telemetry = {layer = "b", sparsity = 0.5}}
      ins(%q, %w : memref<?x10xi8>, memref<2x10x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  tfmbs.gemv {tile_mask = 3 : ui64, weight_addr = 4156 : ui64,
              telemetry = {layer = "given", sparsity = 0.5}}
      ins(%q, %w : memref<?x10xi8>, memref<2x10x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  tfmbs.gemv {tile_mask = 3 : ui64, telemetry = {layer = "both", sparsity = 0.5}}
      ins(%q, %w : memref<?x10xi8>, memref<2x10x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "a", sparsity = 0.5}}
      ins(%q, %w : memref<?x10xi8>, memref<2x10x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  return
}

// -----

// What is larger than a bank streams; half a bank stays free for it, so the last of the three that
// would fit gives way.
// CHECK-LABEL: func.func @streams
// CHECK: layer = "a"{{.*}} weight_addr = 4096 : ui64
// CHECK: layer = "b"
// CHECK-SAME: placement = "streamed"
// CHECK-NOT: weight_addr
// CHECK: layer = "large"
// CHECK-SAME: placement = "streamed"
// CHECK-NOT: weight_addr
func.func @streams(%q: memref<?x20xi8>, %l: memref<?x65xi8>, %a: memref<?x2xi32>) {
  %w = tfmbs.weights dense<1> : tensor<8xi8> -> memref<2x20x!tfmbs.trit>
  %v = tfmbs.weights dense<1> : tensor<26xi8> -> memref<2x65x!tfmbs.trit>
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "a", sparsity = 0.5}}
      ins(%q, %w : memref<?x20xi8>, memref<2x20x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  // expected-remark @below {{layer 'b' streams: 44 words of Bank A are left for it}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "b", sparsity = 0.5}}
      ins(%q, %w : memref<?x20xi8>, memref<2x20x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  // expected-remark @below {{layer 'large' streams: 44 words of Bank A are left for it}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "large", sparsity = 0.5}}
      ins(%l, %v : memref<?x65xi8>, memref<2x65x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  return
}

// -----

func.func @overlap(%q: memref<?x10xi8>, %a: memref<?x2xi32>) {
  %w = tfmbs.weights dense<1> : tensor<4xi8> -> memref<2x10x!tfmbs.trit>
  tfmbs.gemv {tile_mask = 1 : ui64, weight_addr = 4096 : ui64,
              telemetry = {layer = "a", sparsity = 0.5}}
      ins(%q, %w : memref<?x10xi8>, memref<2x10x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  // expected-error @below {{layer 'b': weight_addr 0x1024 overlaps layer 'a', which was given 0x1000 and takes 10 words}}
  tfmbs.gemv {tile_mask = 3 : ui64, weight_addr = 4132 : ui64,
              telemetry = {layer = "b", sparsity = 0.5}}
      ins(%q, %w : memref<?x10xi8>, memref<2x10x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  return
}

// -----

func.func @outside(%q: memref<?x10xi8>, %a: memref<?x2xi32>) {
  %w = tfmbs.weights dense<1> : tensor<4xi8> -> memref<2x10x!tfmbs.trit>
  // expected-error @below {{layer 'a': weight_addr 0x2000 is not in tile 0's Bank A; allowed are multiples of 4 from 0x1000 to 0x10fc}}
  tfmbs.gemv {tile_mask = 1 : ui64, weight_addr = 8192 : ui64,
              telemetry = {layer = "a", sparsity = 0.5}}
      ins(%q, %w : memref<?x10xi8>, memref<2x10x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  return
}

// -----

func.func @across_the_end(%q: memref<?x10xi8>, %a: memref<?x2xi32>) {
  %w = tfmbs.weights dense<1> : tensor<4xi8> -> memref<2x10x!tfmbs.trit>
  // expected-error @below {{leaves 9 words of Bank A, and the layer needs 10}}
  tfmbs.gemv {tile_mask = 1 : ui64, weight_addr = 4316 : ui64,
              telemetry = {layer = "a", sparsity = 0.5}}
      ins(%q, %w : memref<?x10xi8>, memref<2x10x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  return
}

// -----

func.func @mask(%q: memref<?x10xi8>, %a: memref<?x2xi32>) {
  %w = tfmbs.weights dense<1> : tensor<4xi8> -> memref<2x10x!tfmbs.trit>
  // expected-error @below {{layer 'a': tile_mask 4 names tiles beyond the 2 of the fabric; allowed are 1 to 3}}
  tfmbs.gemv {tile_mask = 4 : ui64, telemetry = {layer = "a", sparsity = 0.5}}
      ins(%q, %w : memref<?x10xi8>, memref<2x10x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  return
}

// -----

func.func @two_addresses(%q: memref<?x10xi8>, %a: memref<?x2xi32>) {
  %w = tfmbs.weights dense<1> : tensor<4xi8> -> memref<2x10x!tfmbs.trit>
  tfmbs.gemv {tile_mask = 1 : ui64, weight_addr = 4096 : ui64,
              telemetry = {layer = "a", sparsity = 0.5}}
      ins(%q, %w : memref<?x10xi8>, memref<2x10x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  // expected-error @below {{layer 'a' has two addresses: 4096 and 4200}}
  tfmbs.gemv {tile_mask = 1 : ui64, weight_addr = 4200 : ui64,
              telemetry = {layer = "a", sparsity = 0.5}}
      ins(%q, %w : memref<?x10xi8>, memref<2x10x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  return
}

// -----

// 60 words are given, and nothing can stream through four.
func.func @no_window(%q: memref<?x60xi8>, %l: memref<?x65xi8>, %a: memref<?x2xi32>) {
  %w = tfmbs.weights dense<1> : tensor<24xi8> -> memref<2x60x!tfmbs.trit>
  %v = tfmbs.weights dense<1> : tensor<26xi8> -> memref<2x65x!tfmbs.trit>
  tfmbs.gemv {tile_mask = 1 : ui64, weight_addr = 4096 : ui64,
              telemetry = {layer = "a", sparsity = 0.5}}
      ins(%q, %w : memref<?x60xi8>, memref<2x60x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  // expected-error @below {{layer 'large' finds no room in Bank A: it can stream through 15 words, and given addresses leave 4}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "large", sparsity = 0.5}}
      ins(%l, %v : memref<?x65xi8>, memref<2x65x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  return
}
