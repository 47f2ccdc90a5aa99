// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin --verify-diagnostics --split-input-file --mlir-print-op-on-diagnostic=false %s

// What a layer carries: tile_mask, weight_addr and telemetry.

func.func @no_mask(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op requires attribute 'tile_mask'}}
  tfmbs.gemv {telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @empty_mask(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op tile_mask is 0; a layer needs a tile}}
  tfmbs.gemv {tile_mask = 0 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @signless_mask(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op attribute 'tile_mask' failed to satisfy constraint: 64-bit unsigned integer attribute}}
  tfmbs.gemv {tile_mask = 15 : i64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @text_mask(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op attribute 'tile_mask' failed to satisfy constraint: 64-bit unsigned integer attribute}}
  tfmbs.gemv {tile_mask = "15", telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @wide_mask(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{integer constant out of range for attribute}}
  tfmbs.gemv {tile_mask = 18446744073709551616 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @odd_address(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op weight_addr is 6; it must be a multiple of 4 bytes}}
  tfmbs.gemv {tile_mask = 1 : ui64, weight_addr = 6 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @signed_address(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op attribute 'weight_addr' failed to satisfy constraint: 64-bit unsigned integer attribute}}
  tfmbs.gemv {tile_mask = 1 : ui64, weight_addr = -1 : i64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @no_telemetry(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op requires attribute 'telemetry'}}
  tfmbs.gemv {tile_mask = 1 : ui64} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @text_telemetry(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op attribute 'telemetry' failed to satisfy constraint: dictionary of named attribute values}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = "fc"} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @empty_telemetry(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op telemetry needs `layer`, a string that is not empty, but has none}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @nameless(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op telemetry needs `layer`, a string that is not empty, but has ""}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "", sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @numbered(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op telemetry needs `layer`, a string that is not empty, but has 1 : i64}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = 1, sparsity = 0.5}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @no_sparsity(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op telemetry of 'fc' needs `sparsity`, a float in 0...1, but has none}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc"}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @integer_sparsity(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op telemetry of 'fc' needs `sparsity`, a float in 0...1, but has 1 : i64}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 1}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @percent(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op telemetry of 'fc' needs `sparsity`, a float in 0...1, but has 3.330000e+01 : f64}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 33.3}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @nan_sparsity(%q: memref<4x3xi8>, %w: memref<2x3xi8>, %a: memref<4x2xi32>) {
  // expected-error@+1 {{'tfmbs.gemv' op telemetry of 'fc' needs `sparsity`, a float in 0...1, but has 0x7FF8000000000000 : f64}}
  tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0x7FF8000000000000 : f64}} ins(%q, %w : memref<4x3xi8>, memref<2x3xi8>) outs(%a : memref<4x2xi32>)
  return
}

// -----

func.func @linear_mask(%x: memref<4x3xf32>, %w: memref<2x3xi8>, %c: memref<1xf32>, %y: memref<4x2xf32>) {
  // expected-error@+1 {{'tfmbs.linear' op tile_mask is 0; a layer needs a tile}}
  tfmbs.linear int8 {tile_mask = 0 : ui64, telemetry = {layer = "fc", sparsity = 0.5}} ins(%x, %w, %c : memref<4x3xf32>, memref<2x3xi8>, memref<1xf32>) outs(%y : memref<4x2xf32>)
  return
}
