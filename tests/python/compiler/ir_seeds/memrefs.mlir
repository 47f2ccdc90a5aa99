memref.global "private" constant @scales : memref<2xf64> = dense<1.0>
func.func @main(%x: memref<4x3xf64>, %q: memref<4x3xi8>, %s: memref<4xf64>, %a: memref<4x2xi32>, %b: memref<2xf64>, %y: memref<4x2xf64>, %w8: memref<2x3xi8>) {
  %c = memref.get_global @scales : memref<2xf64>
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> memref<2x3x!tfmbs.trit>
  tfmbs.quantize int8 ins(%x : memref<4x3xf64>) outs(%q, %s : memref<4x3xi8>, memref<4xf64>)
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc1", sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<2x3x!tfmbs.trit>) outs(%a : memref<4x2xi32>)
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc2", sparsity = 0.5}} ins(%q, %w8 : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  tfmbs.dequantize {telemetry = {layer = "fc2", sparsity = 0.5}} ins(%a, %s, %c : memref<4x2xi32>, memref<4xf64>, memref<2xf64>) bias(%b : memref<2xf64>) outs(%y : memref<4x2xf64>)
  tfmbs.linear ternary {tile_mask = 1 : ui64, telemetry = {layer = "fc3", sparsity = 0.5}} ins(%x, %w, %c : memref<4x3xf64>, memref<2x3x!tfmbs.trit>, memref<2xf64>) outs(%y : memref<4x2xf64>)
  return
}
