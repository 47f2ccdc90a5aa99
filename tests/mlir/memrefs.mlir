// A layer on buffers: f64, int8 activations, no bias; and a product alone.
func.func @main(%x: memref<?x3xf64>, %q: memref<?x3xi8>, %s: memref<?xf64>, %acc: memref<?x4xi32>,
                %y: memref<?x4xf64>) {
  %w = tfmbs.weights dense<[-118, 1, 7]> : tensor<3xi8> -> memref<4x3x!tfmbs.trit>
  %scale = memref.get_global @scale : memref<1xf64>
  tfmbs.quantize int8 ins(%x : memref<?x3xf64>) outs(%q, %s : memref<?x3xi8>, memref<?xf64>)
  tfmbs.gemv {tile_mask = 3 : ui64, telemetry = {layer = "fc", sparsity = 0.5000}}
      ins(%q, %w : memref<?x3xi8>, memref<4x3x!tfmbs.trit>) outs(%acc : memref<?x4xi32>)
  tfmbs.dequantize ins(%acc, %s, %scale : memref<?x4xi32>, memref<?xf64>, memref<1xf64>)
      outs(%y : memref<?x4xf64>)
  return
}
memref.global "private" constant @scale : memref<1xf64> = dense<0.25>
