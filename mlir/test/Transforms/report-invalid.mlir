// RUN: mlir-opt %s --load-dialect-plugin=%tfmbs_plugin --split-input-file --verify-diagnostics \
// RUN:   --pass-pipeline="builtin.module(tfmbs-report-telemetry)" -o /dev/null

func.func @no_dictionary() {
  // expected-error @below {{telemetry must be a dictionary, but is 3 : i64}}
  %c = arith.constant {telemetry = 3} 0 : i32
  return
}

// -----

func.func @no_layer() {
  // expected-error @below {{telemetry needs `layer`, a string that is not empty, but has none}}
  %c = arith.constant {telemetry = {sparsity = 0.5}} 0 : i32
  return
}

// -----

func.func @no_share() {
  // expected-error @below {{telemetry of 'a' needs `sparsity`, a float in 0...1, but has}}
  %c = arith.constant {telemetry = {layer = "a", sparsity = 1.5}} 0 : i32
  return
}
