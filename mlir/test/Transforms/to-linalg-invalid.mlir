// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin --pass-pipeline='builtin.module(tfmbs-to-linalg)' --verify-diagnostics --split-input-file --mlir-print-op-on-diagnostic=false --allow-unregistered-dialect %s

func.func @argument(%q: tensor<4x3xi8>, %w: tensor<2x3x!tfmbs.trit>, %a: tensor<4x2xi32>) -> tensor<4x2xi32> {
  // expected-error@+1 {{'tfmbs.gemv' op multiplies by packed weights that do not come from a tfmbs.weights}}
  %0 = tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}}
      ins(%q, %w : tensor<4x3xi8>, tensor<2x3x!tfmbs.trit>) outs(%a : tensor<4x2xi32>) -> tensor<4x2xi32>
  return %0 : tensor<4x2xi32>
}

// -----

func.func @linear_argument(%x: memref<4x3xf32>, %w: memref<2x3x!tfmbs.trit>, %c: memref<1xf32>, %y: memref<4x2xf32>) {
  // expected-error@+1 {{'tfmbs.linear' op multiplies by packed weights that do not come from a tfmbs.weights}}
  tfmbs.linear int8 {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}}
      ins(%x, %w, %c : memref<4x3xf32>, memref<2x3x!tfmbs.trit>, memref<1xf32>) outs(%y : memref<4x2xf32>)
  return
}

// -----

// expected-error@+1 {{'func.func' op has a value or an attribute of !tfmbs.trit, which linalg does not have}}
func.func private @declared(tensor<2x3x!tfmbs.trit>)

// -----

// expected-error@+1 {{'func.func' op has a value or an attribute of !tfmbs.trit}}
func.func @returned() -> tensor<2x3x!tfmbs.trit> {
  // expected-error@+1 {{'tfmbs.weights' op is read by what cannot read packed weights}}
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>
  // expected-note@+2 {{read here, by func.return}}
  // expected-error@+1 {{'func.return' op has a value or an attribute of !tfmbs.trit}}
  return %w : tensor<2x3x!tfmbs.trit>
}

// -----

func.func @attribute() {
  // expected-error@+1 {{'test.op' op has a value or an attribute of !tfmbs.trit}}
  "test.op"() {type = memref<4x!tfmbs.trit>} : () -> ()
  return
}
