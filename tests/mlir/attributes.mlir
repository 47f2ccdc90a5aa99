// What telemetry and masks may hold: all 64 tiles, tiles that are not the lowest, entries of one's own, names with
// signs in them; weights that two products share, and weights that come as i8.
func.func @main(%x: tensor<4x5xi8>, %v: tensor<2x5xi8>) -> (tensor<4x2xi32>, tensor<4x2xi32>, tensor<4x2xi32>) {
  %w = tfmbs.weights dense<[105, 77]> : tensor<2xi8> -> tensor<2x5x!tfmbs.trit>
  %init = tensor.empty() : tensor<4x2xi32>
  %all = tfmbs.gemv {tile_mask = 18446744073709551615 : ui64, weight_addr = 4294967296 : ui64,
                     telemetry = {layer = "blocks.0/fc \"1\" {}", sparsity = 0.3000}}
      ins(%x, %w : tensor<4x5xi8>, tensor<2x5x!tfmbs.trit>) outs(%init : tensor<4x2xi32>) -> tensor<4x2xi32>
  %high = tfmbs.gemv {tile_mask = 9223372036854775808 : ui64, weight_addr = 0 : ui64,
                      telemetry = {layer = "schicht-ä", sparsity = 0.3000, fused = ["relu", "bias"],
                                   mine = {depth = 2 : i64, on = true, list = [1, 2.5]}}}
      ins(%x, %w : tensor<4x5xi8>, tensor<2x5x!tfmbs.trit>) outs(%init : tensor<4x2xi32>) -> tensor<4x2xi32>
  %given = tfmbs.gemv {tile_mask = 10 : ui64, telemetry = {layer = "given", sparsity = 0.0000}}
      ins(%x, %v : tensor<4x5xi8>, tensor<2x5xi8>) outs(%init : tensor<4x2xi32>) -> tensor<4x2xi32>
  return %all, %high, %given : tensor<4x2xi32>, tensor<4x2xi32>, tensor<4x2xi32>
}
