// As a dialect plugin the library brings the dialect and the passes.
// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin --show-dialects | FileCheck %s --check-prefix=DIALECT
// DIALECT: Available Dialects:{{.*}}tfmbs
// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin --help | FileCheck %s --check-prefix=PASSES
// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin --pass-pipeline='builtin.module(tfmbs-to-linalg)' %s | FileCheck %s

// As a pass plugin it brings the passes; with both flags nothing is registered twice.
// RUN: mlir-opt --load-pass-plugin=%tfmbs_plugin --help | FileCheck %s --check-prefix=PASSES
// RUN: mlir-opt --load-pass-plugin=%tfmbs_plugin --load-dialect-plugin=%tfmbs_plugin --pass-pipeline='builtin.module(tfmbs-to-linalg)' %s | FileCheck %s
// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin --load-pass-plugin=%tfmbs_plugin --pass-pipeline='builtin.module(tfmbs-to-linalg)' %s | FileCheck %s
// PASSES-DAG: --tfmbs-fuse
// PASSES-DAG: --tfmbs-place
// PASSES-DAG: --tfmbs-report-telemetry
// PASSES-DAG: --tfmbs-to-linalg
// PASSES-DAG: --tfmbs-to-runtime

// Without it, MLIR says what it does not know.
// RUN: not mlir-opt %s 2>&1 | FileCheck %s --check-prefix=NONE
// NONE: Dialect `tfmbs' not found for custom op 'tfmbs.gemv'

// CHECK: linalg.matmul
func.func @product(%q: tensor<4x3xi8>, %w: tensor<2x3xi8>, %a: tensor<4x2xi32>) -> tensor<4x2xi32> {
  %0 = tfmbs.gemv {tile_mask = 1 : ui64, telemetry = {layer = "fc", sparsity = 0.5}}
      ins(%q, %w : tensor<4x3xi8>, tensor<2x3xi8>) outs(%a : tensor<4x2xi32>) -> tensor<4x2xi32>
  return %0 : tensor<4x2xi32>
}
