func.func @main(%x: tensor<?x3xf32>, %m: index, %w8: tensor<2x3xi8>, %b: tensor<2xf32>) -> tensor<?x2xf32> {
  %sc = arith.constant dense<1.0> : tensor<1xf32>
  %q0 = tensor.empty(%m) : tensor<?x3xi8>
  %s0 = tensor.empty(%m) : tensor<?xf32>
  %a0 = tensor.empty(%m) : tensor<?x2xi32>
  %y0 = tensor.empty(%m) : tensor<?x2xf32>
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>
  %q, %s = tfmbs.quantize ternary ins(%x : tensor<?x3xf32>) outs(%q0, %s0 : tensor<?x3xi8>, tensor<?xf32>) -> tensor<?x3xi8>, tensor<?xf32>
  %acc = tfmbs.gemv {tile_mask = 15 : ui64, weight_addr = 4096 : ui64, telemetry = {layer = "fc1", sparsity = 0.5}} ins(%q, %w : tensor<?x3xi8>, tensor<2x3x!tfmbs.trit>) outs(%a0 : tensor<?x2xi32>) -> tensor<?x2xi32>
  %acc8 = tfmbs.gemv {tile_mask = 15 : ui64, telemetry = {layer = "fc2", sparsity = 0.5}} ins(%q, %w8 : tensor<?x3xi8>, tensor<2x3xi8>) outs(%a0 : tensor<?x2xi32>) -> tensor<?x2xi32>
  %y = tfmbs.dequantize ins(%acc, %s, %sc : tensor<?x2xi32>, tensor<?xf32>, tensor<1xf32>) bias(%b : tensor<2xf32>) outs(%y0 : tensor<?x2xf32>) -> tensor<?x2xf32>
  %z = tfmbs.linear int8 relu {tile_mask = 15 : ui64, telemetry = {layer = "fc3", sparsity = 0.3333, fused = ["relu"]}} ins(%x, %w, %sc : tensor<?x3xf32>, tensor<2x3x!tfmbs.trit>, tensor<1xf32>) outs(%y0 : tensor<?x2xf32>) -> tensor<?x2xf32>
  return %z : tensor<?x2xf32>
}
