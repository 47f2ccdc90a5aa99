func.func private @elsewhere(tensor<2x3x!tfmbs.trit>) -> tensor<2x3x!tfmbs.trit>
func.func @main(%q: tensor<4x3xi8>, %a: tensor<4x2xi32>, %p: tensor<2x3x!tfmbs.trit>, %w8: tensor<2x3xi8>, %x: tensor<4x3xf32>, %y: tensor<4x2xf32>) -> tensor<2x3x!tfmbs.trit> {
  %c = arith.constant dense<1.0> : tensor<1xf32>
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>
  %0 = tfmbs.gemv {tile_mask = 15 : ui64, telemetry = {layer = "fc1", sparsity = 0.5}} ins(%q, %w : tensor<4x3xi8>, tensor<2x3x!tfmbs.trit>) outs(%a : tensor<4x2xi32>) -> tensor<4x2xi32>
  %1 = tfmbs.gemv {tile_mask = 15 : ui64, telemetry = {layer = "fc2", sparsity = 0.5}} ins(%q, %w8 : tensor<4x3xi8>, tensor<2x3xi8>) outs(%0 : tensor<4x2xi32>) -> tensor<4x2xi32>
  %2 = tfmbs.linear int8 {tile_mask = 15 : ui64, telemetry = {layer = "fc3", sparsity = 0.5}} ins(%x, %p, %c : tensor<4x3xf32>, tensor<2x3x!tfmbs.trit>, tensor<1xf32>) outs(%y : tensor<4x2xf32>) -> tensor<4x2xf32>
  %3 = func.call @elsewhere(%w) : (tensor<2x3x!tfmbs.trit>) -> tensor<2x3x!tfmbs.trit>
  return %3 : tensor<2x3x!tfmbs.trit>
}
