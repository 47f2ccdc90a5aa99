// 7→6→3 with bias, ReLU and a dynamic batch: ternary activations, then int8; one scale, then one an
// output.
func.func @main(%x: tensor<?x7xf32>) -> tensor<?x3xf32> {
  %c0 = arith.constant 0 : index
  %samples = tensor.dim %x, %c0 : tensor<?x7xf32>

  %w1 = tfmbs.weights dense<[33, -108, 90, -114, 61, -93, 65, 61, 4]> : tensor<9xi8> -> tensor<6x7x!tfmbs.trit>
  %scale1 = arith.constant dense<1.0> : tensor<1xf32>
  %b1 = arith.constant dense<[0.5, -0.25, 0.0, 1.5, -2.0, 0.125]> : tensor<6xf32>
  %q1_init = tensor.empty(%samples) : tensor<?x7xi8>
  %s1_init = tensor.empty(%samples) : tensor<?xf32>
  %q1, %s1 = tfmbs.quantize ternary ins(%x : tensor<?x7xf32>)
      outs(%q1_init, %s1_init : tensor<?x7xi8>, tensor<?xf32>) -> tensor<?x7xi8>, tensor<?xf32>
  %acc1_init = tensor.empty(%samples) : tensor<?x6xi32>
  %acc1 = tfmbs.gemv {tile_mask = 1 : ui64, weight_addr = 4096 : ui64,
                      telemetry = {layer = "fc1", sparsity = 0.3810, weight_quantizer = "sign", activation = "ternary"}}
      ins(%q1, %w1 : tensor<?x7xi8>, tensor<6x7x!tfmbs.trit>) outs(%acc1_init : tensor<?x6xi32>) -> tensor<?x6xi32>
  %y1_init = tensor.empty(%samples) : tensor<?x6xf32>
  %y1 = tfmbs.dequantize ins(%acc1, %s1, %scale1 : tensor<?x6xi32>, tensor<?xf32>, tensor<1xf32>)
      bias(%b1 : tensor<6xf32>) outs(%y1_init : tensor<?x6xf32>) -> tensor<?x6xf32>

  %zero = arith.constant 0.0 : f32
  %relu = linalg.generic {
      indexing_maps = [affine_map<(m, n) -> (m, n)>, affine_map<(m, n) -> (m, n)>],
      iterator_types = ["parallel", "parallel"]}
      ins(%y1 : tensor<?x6xf32>) outs(%y1_init : tensor<?x6xf32>) {
  ^bb0(%value: f32, %out: f32):
    %rectified = arith.maximumf %value, %zero : f32
    linalg.yield %rectified : f32
  } -> tensor<?x6xf32>

  %w2 = tfmbs.weights dense<[27, -50, -34, 21]> : tensor<4xi8> -> tensor<3x6x!tfmbs.trit>
  %scale2 = arith.constant dense<[0.5, 0.75, 2.0]> : tensor<3xf32>
  %q2_init = tensor.empty(%samples) : tensor<?x6xi8>
  %q2, %s2 = tfmbs.quantize int8 ins(%relu : tensor<?x6xf32>)
      outs(%q2_init, %s1_init : tensor<?x6xi8>, tensor<?xf32>) -> tensor<?x6xi8>, tensor<?xf32>
  %acc2_init = tensor.empty(%samples) : tensor<?x3xi32>
  %acc2 = tfmbs.gemv {tile_mask = 1 : ui64,
                      telemetry = {layer = "fc2", sparsity = 0.3889, weight_quantizer = "twn", activation = "int8"}}
      ins(%q2, %w2 : tensor<?x6xi8>, tensor<3x6x!tfmbs.trit>) outs(%acc2_init : tensor<?x3xi32>) -> tensor<?x3xi32>
  %y2_init = tensor.empty(%samples) : tensor<?x3xf32>
  %y2 = tfmbs.dequantize ins(%acc2, %s2, %scale2 : tensor<?x3xi32>, tensor<?xf32>, tensor<3xf32>)
      outs(%y2_init : tensor<?x3xf32>) -> tensor<?x3xf32>
  return %y2 : tensor<?x3xf32>
}
