// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin --verify-diagnostics --split-input-file --mlir-print-op-on-diagnostic=false %s

// --- quantize ------------------------------------------------------------------------------------

func.func @rows(%x: tensor<4x3xf32>, %q: tensor<5x3xi8>, %s: tensor<4xf32>) {
  // expected-error@+1 {{'tfmbs.quantize' op rows of the input is 4, but rows of the values is 5}}
  %0, %1 = tfmbs.quantize ternary ins(%x : tensor<4x3xf32>) outs(%q, %s : tensor<5x3xi8>, tensor<4xf32>) -> tensor<5x3xi8>, tensor<4xf32>
  return
}

// -----

func.func @depth(%x: tensor<?x3xf32>, %q: tensor<?x2xi8>, %s: tensor<?xf32>) {
  // expected-error@+1 {{'tfmbs.quantize' op depth of the input is 3, but depth of the values is 2}}
  %0, %1 = tfmbs.quantize int8 ins(%x : tensor<?x3xf32>) outs(%q, %s : tensor<?x2xi8>, tensor<?xf32>) -> tensor<?x2xi8>, tensor<?xf32>
  return
}

// -----

func.func @scale_count(%x: memref<4x3xf32>, %q: memref<4x3xi8>, %s: memref<1xf32>) {
  // expected-error@+1 {{'tfmbs.quantize' op rows of the input is 4, but the number of scales is 1}}
  tfmbs.quantize ternary ins(%x : memref<4x3xf32>) outs(%q, %s : memref<4x3xi8>, memref<1xf32>)
  return
}

// -----

func.func @scale_type(%x: memref<4x3xf64>, %q: memref<4x3xi8>, %s: memref<4xf32>) {
  // expected-error@+1 {{'tfmbs.quantize' op scales are f64 for f64 input and f32 otherwise, but the input is 'f64' and the scales are 'f32'}}
  tfmbs.quantize ternary ins(%x : memref<4x3xf64>) outs(%q, %s : memref<4x3xi8>, memref<4xf32>)
  return
}

// -----

func.func @half_scales(%x: memref<4x3xf16>, %q: memref<4x3xi8>, %s: memref<4xf16>) {
  // expected-error@+1 {{'tfmbs.quantize' op operand #2 must be vector of f32 or f64, but got 'memref<4xf16>'}}
  tfmbs.quantize ternary ins(%x : memref<4x3xf16>) outs(%q, %s : memref<4x3xi8>, memref<4xf16>)
  return
}

// -----

func.func @integers(%x: memref<4x3xi32>, %q: memref<4x3xi8>, %s: memref<4xf32>) {
  // expected-error@+1 {{'tfmbs.quantize' op operand #0 must be matrix of f32, f64, bf16 or f16, but got 'memref<4x3xi32>'}}
  tfmbs.quantize ternary ins(%x : memref<4x3xi32>) outs(%q, %s : memref<4x3xi8>, memref<4xf32>)
  return
}

// -----

func.func @rank(%x: memref<4x3x2xf32>, %q: memref<4x3xi8>, %s: memref<4xf32>) {
  // expected-error@+1 {{'tfmbs.quantize' op operand #0 must be matrix of f32, f64, bf16 or f16, but got 'memref<4x3x2xf32>'}}
  tfmbs.quantize ternary ins(%x : memref<4x3x2xf32>) outs(%q, %s : memref<4x3xi8>, memref<4xf32>)
  return
}

// -----

func.func @unranked(%x: tensor<*xf32>, %q: tensor<4x3xi8>, %s: tensor<4xf32>) {
  // expected-error@+1 {{'tfmbs.quantize' op operand #0 must be matrix of f32, f64, bf16 or f16, but got 'tensor<*xf32>'}}
  %0, %1 = tfmbs.quantize ternary ins(%x : tensor<*xf32>) outs(%q, %s : tensor<4x3xi8>, tensor<4xf32>) -> tensor<4x3xi8>, tensor<4xf32>
  return
}

// -----

func.func @scalar(%x: f32, %q: tensor<4x3xi8>, %s: tensor<4xf32>) {
  // expected-error@+1 {{'tfmbs.quantize' op operand #0 must be matrix of f32, f64, bf16 or f16, but got 'f32'}}
  %0, %1 = tfmbs.quantize ternary ins(%x : f32) outs(%q, %s : tensor<4x3xi8>, tensor<4xf32>) -> tensor<4x3xi8>, tensor<4xf32>
  return
}

// -----

func.func @mixed(%x: tensor<4x3xf32>, %q: memref<4x3xi8>, %s: memref<4xf32>) {
  // expected-error@+1 {{'tfmbs.quantize' op mixes tensors and memrefs}}
  tfmbs.quantize ternary ins(%x : tensor<4x3xf32>) outs(%q, %s : memref<4x3xi8>, memref<4xf32>)
  return
}

// -----

func.func @no_results(%x: tensor<4x3xf32>, %q: tensor<4x3xi8>, %s: tensor<4xf32>) {
  // expected-error@+1 {{'tfmbs.quantize' op on tensors has 2 results, not 0}}
  tfmbs.quantize ternary ins(%x : tensor<4x3xf32>) outs(%q, %s : tensor<4x3xi8>, tensor<4xf32>)
  return
}

// -----

func.func @results_of_memrefs(%x: memref<4x3xf32>, %q: memref<4x3xi8>, %s: memref<4xf32>) {
  // expected-error@+1 {{'tfmbs.quantize' op on memrefs has 0 results, not 2}}
  %0, %1 = tfmbs.quantize ternary ins(%x : memref<4x3xf32>) outs(%q, %s : memref<4x3xi8>, memref<4xf32>) -> tensor<4x3xi8>, tensor<4xf32>
  return
}

// -----

func.func @one_result(%x: tensor<4x3xf32>, %q: tensor<4x3xi8>, %s: tensor<4xf32>) {
  // expected-error@+1 {{'tfmbs.quantize' op}}
  %0 = "tfmbs.quantize"(%x, %q, %s) {activation = 0 : i32} : (tensor<4x3xf32>, tensor<4x3xi8>, tensor<4xf32>) -> tensor<4x3xi8>
  return
}

// -----

func.func @no_activation(%x: memref<4x3xf32>, %q: memref<4x3xi8>, %s: memref<4xf32>) {
  // expected-error@+1 {{'tfmbs.quantize' op requires attribute 'activation'}}
  "tfmbs.quantize"(%x, %q, %s) : (memref<4x3xf32>, memref<4x3xi8>, memref<4xf32>) -> ()
  return
}

// -----

func.func @unknown_activation(%x: memref<4x3xf32>, %q: memref<4x3xi8>, %s: memref<4xf32>) {
  // expected-error@+1 {{'tfmbs.quantize' op attribute 'activation' failed to satisfy constraint}}
  "tfmbs.quantize"(%x, %q, %s) {activation = 7 : i32} : (memref<4x3xf32>, memref<4x3xi8>, memref<4xf32>) -> ()
  return
}

// -----

func.func @misspelt_activation(%x: memref<4x3xf32>, %q: memref<4x3xi8>, %s: memref<4xf32>) {
  // expected-error@+1 {{expected string or keyword containing one of the following enum values for attribute 'activation' [ternary, int8]}}
  tfmbs.quantize int9 ins(%x : memref<4x3xf32>) outs(%q, %s : memref<4x3xi8>, memref<4xf32>)
  return
}

// --- gemv ----------------------------------------------------------------------------------------

// -----

func.func @gemv_depth(%q: memref<4x3xi8>, %w: memref<2x4xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op depth of the input is 3, but depth of the weights is 4}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<2x4xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @gemv_rows(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<5x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op rows of the input is 4, but rows of the destination is 5}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<5x2xi32>)
  return
}

// -----

func.func @gemv_outputs(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x3xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op outputs of the weights is 2, but columns of the destination is 3}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x3xi32>)
  return
}

// -----

func.func @dynamic_weights(%q: memref<4x3xi8>, %w: memref<?x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op weights need static sizes, but are 'memref<?x3xi8>'}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<?x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @deep(%q: memref<4x16777217xi8>, %w: memref<2x16777217xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op depth is 16777217; at most 16777216 keeps i32 sums exact}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : memref<4x16777217xi8>, memref<2x16777217xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @vast(%q: memref<4x16777216xi8>, %w: memref<4611686018427387904x16777216xi8>, %a: memref<4x4611686018427387904xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op outputs are 4611686018427387904; at most 4294967296 are a layer}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : memref<4x16777216xi8>, memref<4611686018427387904x16777216xi8>) outs(%a : memref<4x4611686018427387904xi32>)
  return
}

// -----

func.func @too_many_trits(%x: memref<4x16777216xf32>, %w: memref<4294967296x16777216xi8>, %s: memref<1xf32>, %y: memref<4x4294967296xf32>) {
  // expected-error@+1 {{'tfmbs.linear' op weights are 'memref<4294967296x16777216xi8>'; at most 281474976710656 trits are a matrix}}
  tfmbs.linear int8 {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%x, %w, %s : memref<4x16777216xf32>, memref<4294967296x16777216xi8>, memref<1xf32>) outs(%y : memref<4x4294967296xf32>)
  return
}

// -----

func.func @float_weights(%q: memref<4x3xi8>, %w: memref<2x3xf32>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op operand #1 must be matrix of !tfmbs.trit or i8, but got 'memref<2x3xf32>'}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<2x3xf32>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @unranked_weights(%q: memref<4x3xi8>, %w: memref<*x!tfmbs.trit>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op operand #1 must be matrix of !tfmbs.trit or i8, but got 'memref<*x!tfmbs.trit>'}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<*x!tfmbs.trit>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @narrow_sums(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi16>) {
  // expected-error@+1 {{'tfmbs.gemv' op operand #2 must be matrix of i32, but got 'memref<4x2xi16>'}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi16>)
  return
}

// -----

func.func @mixed_weights(%q: tensor<4x3xi8>, %w: memref<2x3xi8>, %a: tensor<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op mixes tensors and memrefs}}
  %0 = tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : tensor<4x3xi8>, memref<2x3xi8>) outs(%a : tensor<4x2xi32>) -> tensor<4x2xi32>
  return
}

// -----

func.func @other_result(%q: tensor<4x3xi8>, %w: tensor<2x3xi8>, %a: tensor<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op expected type of operand #2 ('tensor<4x2xi32>') to match type of corresponding result ('tensor<?x2xi32>')}}
  %0 = tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : tensor<4x3xi8>, tensor<2x3xi8>) outs(%a : tensor<4x2xi32>) -> tensor<?x2xi32>
  return
}

// --- dequantize ----------------------------------------------------------------------------------

// -----

func.func @row_scales(%a: memref<4x2xi32>, %s: memref<3xf32>, %c: memref<1xf32>, %y: memref<4x2xf32>) {
  // expected-error@+1 {{'tfmbs.dequantize' op rows of the sums is 4, but the number of row scales is 3}}
  tfmbs.dequantize ins(%a, %s, %c : memref<4x2xi32>, memref<3xf32>, memref<1xf32>) outs(%y : memref<4x2xf32>)
  return
}

// -----

func.func @output_scales(%a: memref<4x2xi32>, %s: memref<4xf32>, %c: memref<3xf32>, %y: memref<4x2xf32>) {
  // expected-error@+1 {{'tfmbs.dequantize' op output scales are 3; they must be a static number, 1 or the number of outputs, 2}}
  tfmbs.dequantize ins(%a, %s, %c : memref<4x2xi32>, memref<4xf32>, memref<3xf32>) outs(%y : memref<4x2xf32>)
  return
}

// -----

func.func @dynamic_output_scales(%a: memref<4x?xi32>, %s: memref<4xf32>, %c: memref<?xf32>, %y: memref<4x?xf32>) {
  // expected-error@+1 {{'tfmbs.dequantize' op output scales are ?; they must be a static number, 1 or the number of outputs, ?}}
  tfmbs.dequantize ins(%a, %s, %c : memref<4x?xi32>, memref<4xf32>, memref<?xf32>) outs(%y : memref<4x?xf32>)
  return
}

// -----

func.func @scale_types(%a: memref<4x2xi32>, %s: memref<4xf32>, %c: memref<1xf64>, %y: memref<4x2xf32>) {
  // expected-error@+1 {{'tfmbs.dequantize' op row scales and output scales must be of one type}}
  tfmbs.dequantize ins(%a, %s, %c : memref<4x2xi32>, memref<4xf32>, memref<1xf64>) outs(%y : memref<4x2xf32>)
  return
}

// -----

func.func @biases(%a: memref<4x2xi32>, %s: memref<4xf32>, %c: memref<1xf32>, %b: memref<1xf32>, %y: memref<4x2xf32>) {
  // expected-error@+1 {{'tfmbs.dequantize' op columns of the sums is 2, but the number of biases is 1}}
  tfmbs.dequantize ins(%a, %s, %c : memref<4x2xi32>, memref<4xf32>, memref<1xf32>) bias(%b : memref<1xf32>) outs(%y : memref<4x2xf32>)
  return
}

// -----

func.func @integer_result(%a: memref<4x2xi32>, %s: memref<4xf32>, %c: memref<1xf32>, %y: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.dequantize' op operand #3 must be matrix of f32, f64, bf16 or f16, but got 'memref<4x2xi32>'}}
  tfmbs.dequantize ins(%a, %s, %c : memref<4x2xi32>, memref<4xf32>, memref<1xf32>) outs(%y : memref<4x2xi32>)
  return
}

// -----

func.func @dequantize_telemetry(%a: memref<4x2xi32>, %s: memref<4xf32>, %c: memref<1xf32>, %y: memref<4x2xf32>) {
  // expected-error@+1 {{'tfmbs.dequantize' op telemetry needs `layer`, a string that is not empty, but has none}}
  tfmbs.dequantize {telemetry = {sparsity = 0.5}} ins(%a, %s, %c : memref<4x2xi32>, memref<4xf32>, memref<1xf32>) outs(%y : memref<4x2xf32>)
  return
}

// --- linear --------------------------------------------------------------------------------------

// -----

func.func @linear_depth(%x: memref<4x3xf32>, %w: memref<2x5xi8>, %c: memref<1xf32>, %y: memref<4x2xf32>) {
  // expected-error@+1 {{'tfmbs.linear' op depth of the input is 3, but depth of the weights is 5}}
  tfmbs.linear int8 {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%x, %w, %c : memref<4x3xf32>, memref<2x5xi8>, memref<1xf32>) outs(%y : memref<4x2xf32>)
  return
}

// -----

func.func @linear_outputs(%x: memref<4x3xf32>, %w: memref<2x3xi8>, %c: memref<1xf32>, %y: memref<4x4xf32>) {
  // expected-error@+1 {{'tfmbs.linear' op outputs of the weights is 2, but columns of the destination is 4}}
  tfmbs.linear int8 {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%x, %w, %c : memref<4x3xf32>, memref<2x3xi8>, memref<1xf32>) outs(%y : memref<4x4xf32>)
  return
}

// -----

func.func @linear_rows(%x: memref<4x3xf32>, %w: memref<2x3xi8>, %c: memref<1xf32>, %y: memref<1x2xf32>) {
  // expected-error@+1 {{'tfmbs.linear' op rows of the input is 4, but rows of the destination is 1}}
  tfmbs.linear int8 {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%x, %w, %c : memref<4x3xf32>, memref<2x3xi8>, memref<1xf32>) outs(%y : memref<1x2xf32>)
  return
}

// -----

func.func @linear_scales(%x: memref<4x3xf32>, %w: memref<2x3xi8>, %c: memref<0xf32>, %y: memref<4x2xf32>) {
  // expected-error@+1 {{'tfmbs.linear' op output scales are 0; they must be a static number, 1 or the number of outputs, 2}}
  tfmbs.linear int8 {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%x, %w, %c : memref<4x3xf32>, memref<2x3xi8>, memref<0xf32>) outs(%y : memref<4x2xf32>)
  return
}

// -----

func.func @linear_scale_type(%x: memref<4x3xf64>, %w: memref<2x3xi8>, %c: memref<1xf32>, %y: memref<4x2xf64>) {
  // expected-error@+1 {{'tfmbs.linear' op output scales are f64 for f64 input and f32 otherwise, but the input is 'f64' and the scales are 'f32'}}
  tfmbs.linear int8 {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%x, %w, %c : memref<4x3xf64>, memref<2x3xi8>, memref<1xf32>) outs(%y : memref<4x2xf64>)
  return
}

// -----

func.func @linear_bias(%x: memref<4x3xf32>, %w: memref<2x3xi8>, %c: memref<1xf32>, %b: memref<4xf32>, %y: memref<4x2xf32>) {
  // expected-error@+1 {{'tfmbs.linear' op outputs of the weights is 2, but the number of biases is 4}}
  tfmbs.linear int8 {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%x, %w, %c : memref<4x3xf32>, memref<2x3xi8>, memref<1xf32>) bias(%b : memref<4xf32>) outs(%y : memref<4x2xf32>)
  return
}

// -----

func.func @linear_dynamic_weights(%x: memref<4x?xf32>, %w: memref<2x?xi8>, %c: memref<1xf32>, %y: memref<4x2xf32>) {
  // expected-error@+1 {{'tfmbs.linear' op weights need static sizes, but are 'memref<2x?xi8>'}}
  tfmbs.linear int8 {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%x, %w, %c : memref<4x?xf32>, memref<2x?xi8>, memref<1xf32>) outs(%y : memref<4x2xf32>)
  return
}
