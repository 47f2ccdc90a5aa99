func.func @main(%q: tensor<4x3xi8>, %a: tensor<4x2xi32>, %x: tensor<4x3xf32>, %s: tensor<4xf32>, %y: tensor<4x2xf32>) {
  %c = arith.constant dense<1.0> : tensor<1xf32>
  %w = "tfmbs.weights"() <{value = dense_resource<fc1> : tensor<2xi8>}> : () -> tensor<2x3x!tfmbs.trit>
  %0:2 = "tfmbs.quantize"(%x, %q, %s) <{activation = 0 : i32}> : (tensor<4x3xf32>, tensor<4x3xi8>, tensor<4xf32>) -> (tensor<4x3xi8>, tensor<4xf32>)
  %1 = "tfmbs.gemv"(%q, %w, %a) <{telemetry = {layer = "fc1", sparsity = 0.5}, tile_mask = 15 : ui64}> : (tensor<4x3xi8>, tensor<2x3x!tfmbs.trit>, tensor<4x2xi32>) -> tensor<4x2xi32>
  %2 = "tfmbs.linear"(%x, %w, %c, %y) <{activation = 1 : i32, relu, telemetry = {layer = "fc1", sparsity = 0.5}, tile_mask = 15 : ui64}> : (tensor<4x3xf32>, tensor<2x3x!tfmbs.trit>, tensor<1xf32>, tensor<4x2xf32>) -> tensor<4x2xf32>
  return
}
{-# dialect_resources: { builtin: { fc1: "0x010000000502" } } #-}
