// RUN: mlir-opt %s --load-dialect-plugin=%tfmbs_plugin \
// RUN:   --pass-pipeline="builtin.module(tfmbs-to-runtime{fabric=fabric=default})" | FileCheck %s
// RUN: mlir-opt %s --load-dialect-plugin=%tfmbs_plugin --pass-pipeline="builtin.module(tfmbs-to-runtime,\
// RUN:   buffer-deallocation-pipeline,convert-bufferization-to-memref,func.func(optimize-allocation-liveness),\
// RUN:   func.func(convert-linalg-to-loops),convert-scf-to-cf,expand-strided-metadata,lower-affine,\
// RUN:   convert-arith-to-llvm,finalize-memref-to-llvm,convert-func-to-llvm,convert-cf-to-llvm,\
// RUN:   reconcile-unrealized-casts)" | FileCheck %s --check-prefix=LLVM

// LLVM-NOT: builtin.unrealized_conversion_cast
// LLVM-NOT: {{(func|memref|arith|linalg|tfmbs)}}.{{[a-z]+}} %
// LLVM: llvm.func internal @tfmbs_forward_0
// LLVM: llvm.func @tfmbs_release()

// One slot for the two uses of "fc1", one for "fc2" with the same weights, whose i8 weights are packed.
// CHECK-DAG: llvm.mlir.global internal @tfmbs_slot_0() {{.*}} : !llvm.ptr
// CHECK-DAG: llvm.mlir.global internal @tfmbs_slot_1() {{.*}} : !llvm.ptr
// CHECK-DAG: llvm.mlir.global internal constant @tfmbs_name_0("fc1\00")
// CHECK-DAG: llvm.mlir.global internal constant @tfmbs_weights_0(dense<[5, 2]> : tensor<2xi8>)
// CHECK-DAG: llvm.mlir.global internal constant @tfmbs_weights_1(dense<[5, 2]> : tensor<2xi8>)
// CHECK-DAG: llvm.mlir.global internal constant @tfmbs_scales_1(dense<[1.{{.*}}, 2.{{.*}}]> : tensor<2xf64>)
// CHECK-DAG: llvm.mlir.global internal constant @tfmbs_fabric("fabric=default\00")
memref.global "private" constant @scale : memref<1xf32> = dense<1.0>
memref.global "private" constant @scales : memref<2xf64> = dense<[1.0, 2.0]>
memref.global "private" constant @trits : memref<2x3xi8> = dense<[[-1, 1, 0], [0, 0, -1]]>

// CHECK-LABEL: func.func @uses
// CHECK: call @tfmbs_forward_0(%{{.*}}, %{{.*}}, %{{.*}}) {telemetry = {layer = "fc1", sparsity = 5.000000e-01 : f64}, tile_mask = 1 : ui64, weight_addr = 4096 : ui64}
// CHECK: call @[[$PLAIN:tfmbs_forward_0_.*]](%{{.*}}, %{{.*}}) {telemetry
// CHECK: call @tfmbs_forward_1(%{{.*}}, %{{.*}}) {telemetry
// CHECK-NOT: tfmbs.weights
func.func @uses(%x: memref<?x3xf16>, %b: memref<2xf32>, %y: memref<?x2xbf16>,
                %x64: memref<4x3xf64>, %y64: memref<4x2xf64>) {
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> memref<2x3x!tfmbs.trit>
  %s = memref.get_global @scale : memref<1xf32>
  tfmbs.linear ternary relu {tile_mask = 1 : ui64, weight_addr = 4096 : ui64,
                             telemetry = {layer = "fc1", sparsity = 0.5}}
      ins(%x, %w, %s : memref<?x3xf16>, memref<2x3x!tfmbs.trit>, memref<1xf32>)
      bias(%b : memref<2xf32>) outs(%y : memref<?x2xbf16>)
  tfmbs.linear ternary {tile_mask = 1 : ui64, weight_addr = 4096 : ui64,
                        telemetry = {layer = "fc1", sparsity = 0.5}}
      ins(%x, %w, %s : memref<?x3xf16>, memref<2x3x!tfmbs.trit>, memref<1xf32>)
      outs(%y : memref<?x2xbf16>)
  %t = memref.get_global @trits : memref<2x3xi8>
  %s64 = memref.get_global @scales : memref<2xf64>
  tfmbs.linear int8 {tile_mask = 1 : ui64, telemetry = {layer = "fc2", sparsity = 0.5}}
      ins(%x64, %t, %s64 : memref<4x3xf64>, memref<2x3xi8>, memref<2xf64>)
      outs(%y64 : memref<4x2xf64>)
  return
}

// Rows with gaps go through buffers; rows that only start elsewhere do not.
// CHECK-LABEL: func.func @strided
// CHECK: %[[IN:.*]] = memref.alloc(%{{.*}}) : memref<?x3xf32>
// CHECK: linalg.copy ins(%{{.*}}) outs(%[[IN]]
// CHECK: %[[OUT:.*]] = memref.alloc(%{{.*}}) : memref<?x2xf32>
// CHECK: call @{{.*}}(%[[IN]], %[[OUT]])
// CHECK: linalg.copy ins(%[[OUT]]
// CHECK-NOT: memref.alloc
// CHECK: call @{{.*}} : (memref<?x3xf32, strided<[3, 1], offset: ?>>, memref<?x2xf32, strided<[2, 1], offset: 4>>)
func.func @strided(%x: memref<?x3xf32, strided<[6, 2]>>, %y: memref<?x2xf32, strided<[?, 1]>>,
    %v: memref<?x3xf32, strided<[3, 1], offset: ?>>, %z: memref<?x2xf32, strided<[2, 1], offset: 4>>) {
  %w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> memref<2x3x!tfmbs.trit>
  %s = memref.get_global @scale : memref<1xf32>
  tfmbs.linear ternary {tile_mask = 1 : ui64, weight_addr = 4096 : ui64,
                        telemetry = {layer = "fc1", sparsity = 0.5}}
      ins(%x, %w, %s : memref<?x3xf32, strided<[6, 2]>>, memref<2x3x!tfmbs.trit>, memref<1xf32>)
      outs(%y : memref<?x2xf32, strided<[?, 1]>>)
  tfmbs.linear ternary {tile_mask = 1 : ui64, weight_addr = 4096 : ui64,
                        telemetry = {layer = "fc1", sparsity = 0.5}}
      ins(%v, %w, %s : memref<?x3xf32, strided<[3, 1], offset: ?>>, memref<2x3x!tfmbs.trit>,
          memref<1xf32>) outs(%z : memref<?x2xf32, strided<[2, 1], offset: 4>>)
  return
}

// CHECK-LABEL: func.func private @tfmbs_forward_0(
// CHECK-SAME: no_inline
// CHECK: llvm.call @tfmbs_layer_define
// CHECK: llvm.call @tfmbs_layer_forward
// CHECK: linalg.generic
// CHECK: arith.cmpf olt
// CHECK: func.func private @[[$PLAIN]](
// CHECK-NOT: linalg.generic
// CHECK: return
// CHECK: llvm.func @tfmbs_release()
// CHECK-COUNT-2: llvm.call @tfmbs_layer_release
