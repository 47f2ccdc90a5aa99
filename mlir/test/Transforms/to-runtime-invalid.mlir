// RUN: mlir-opt %s --load-dialect-plugin=%tfmbs_plugin --split-input-file --verify-diagnostics \
// RUN:   --pass-pipeline="builtin.module(tfmbs-to-runtime)" -o /dev/null

func.func @tensors(%x: tensor<4x3xf32>, %s: tensor<1xf32>, %y: tensor<4x2xf32>) -> tensor<4x2xf32> {
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>
  // expected-error @below {{is on tensors; tfmbs-to-runtime takes memrefs, so bufferize first}}
  %r = tfmbs.linear ternary {tile_mask = 1 : ui64, telemetry = {layer = "a", sparsity = 0.5}}
      ins(%x, %w, %s : tensor<4x3xf32>, tensor<2x3x!tfmbs.trit>, tensor<1xf32>)
      outs(%y : tensor<4x2xf32>) -> tensor<4x2xf32>
  return %r : tensor<4x2xf32>
}

// -----

func.func @unfused(%q: memref<?x3xi8>, %a: memref<?x2xi32>) {
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> memref<2x3x!tfmbs.trit>
  // expected-warning @below {{'tfmbs.gemv' of layer 'a' stays, and will not run on the fabric: run tfmbs-fuse before bufferization}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "a", sparsity = 0.5}}
      ins(%q, %w : memref<?x3xi8>, memref<2x3x!tfmbs.trit>) outs(%a : memref<?x2xi32>)
  return
}

// -----

func.func @scales(%x: memref<4x3xf32>, %s: memref<1xf32>, %y: memref<4x2xf32>) {
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> memref<2x3x!tfmbs.trit>
  // expected-error @below {{output scales are no constant; the runtime takes them once}}
  tfmbs.linear ternary {tile_mask = 1 : ui64, telemetry = {layer = "a", sparsity = 0.5}}
      ins(%x, %w, %s : memref<4x3xf32>, memref<2x3x!tfmbs.trit>, memref<1xf32>)
      outs(%y : memref<4x2xf32>)
  return
}

// -----

memref.global "private" constant @scale : memref<1xf32> = dense<1.0>
func.func @weights(%x: memref<4x3xf32>, %w: memref<2x3xi8>, %y: memref<4x2xf32>) {
  %s = memref.get_global @scale : memref<1xf32>
  // expected-error @below {{weights are no constant; the runtime packs them once}}
  tfmbs.linear ternary {tile_mask = 1 : ui64, telemetry = {layer = "a", sparsity = 0.5}}
      ins(%x, %w, %s : memref<4x3xf32>, memref<2x3xi8>, memref<1xf32>) outs(%y : memref<4x2xf32>)
  return
}

// -----

memref.global "private" constant @scale : memref<1xf32> = dense<1.0>
memref.global "private" constant @w : memref<2x3xi8> = dense<[[0, 0, 0], [0, 2, 0]]>
func.func @no_trits(%x: memref<4x3xf32>, %y: memref<4x2xf32>) {
  %s = memref.get_global @scale : memref<1xf32>
  %w = memref.get_global @w : memref<2x3xi8>
  // expected-error @below {{weights: }}
  tfmbs.linear ternary {tile_mask = 1 : ui64, telemetry = {layer = "a", sparsity = 0.5}}
      ins(%x, %w, %s : memref<4x3xf32>, memref<2x3xi8>, memref<1xf32>) outs(%y : memref<4x2xf32>)
  return
}

// -----

memref.global "private" constant @scale : memref<1xf32> = dense<1.0>
func.func @space(%x: memref<4x3xf32, 1>, %y: memref<4x2xf32>) {
  %s = memref.get_global @scale : memref<1xf32>
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> memref<2x3x!tfmbs.trit>
  // expected-error @below {{takes ranked memrefs of the default memory space, not 'memref<4x3xf32, 1>'}}
  tfmbs.linear ternary {tile_mask = 1 : ui64, telemetry = {layer = "a", sparsity = 0.5}}
      ins(%x, %w, %s : memref<4x3xf32, 1>, memref<2x3x!tfmbs.trit>, memref<1xf32>)
      outs(%y : memref<4x2xf32>)
  return
}

// -----

memref.global "private" constant @scale : memref<1xf32> = dense<1.0>
func.func @null(%x: memref<4x3xf32>, %y: memref<4x2xf32>) {
  %s = memref.get_global @scale : memref<1xf32>
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> memref<2x3x!tfmbs.trit>
  // expected-error @below {{can hold no null character}}
  tfmbs.linear ternary {tile_mask = 1 : ui64, telemetry = {layer = "a\00b", sparsity = 0.5}}
      ins(%x, %w, %s : memref<4x3xf32>, memref<2x3x!tfmbs.trit>, memref<1xf32>)
      outs(%y : memref<4x2xf32>)
  return
}

// -----

// expected-error @below {{has the name 'tfmbs_release', which tfmbs-to-runtime gives to a function of its own}}
func.func @tfmbs_release() {
  return
}
