// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin --pass-pipeline="builtin.module(tfmbs-lower-copies)" %s | FileCheck %s

// CHECK-LABEL: func.func @gaps(
// CHECK-SAME:    %[[A:.*]]: memref<?x3xf32, strided<[8, 1]>>, %[[B:.*]]: memref<?x3xf32>)
// CHECK-NEXT:    linalg.copy ins(%[[A]] : {{.*}}) outs(%[[B]] : {{.*}})
// CHECK-NEXT:    linalg.copy ins(%[[B]] : {{.*}}) outs(%[[A]] : {{.*}})
// CHECK-NEXT:    return
func.func @gaps(%a: memref<?x3xf32, strided<[8, 1]>>, %b: memref<?x3xf32>) {
  memref.copy %a, %b : memref<?x3xf32, strided<[8, 1]>> to memref<?x3xf32>
  memref.copy %b, %a : memref<?x3xf32> to memref<?x3xf32, strided<[8, 1]>>
  return
}

// CHECK-LABEL: func.func @whole(
// CHECK-NEXT:    memref.copy
func.func @whole(%a: memref<?x3xf32>, %b: memref<?x3xf32>, %c: memref<*xf32>, %d: memref<*xf32>) {
  memref.copy %a, %b : memref<?x3xf32> to memref<?x3xf32>
  // CHECK-NEXT: memref.copy
  memref.copy %c, %d : memref<*xf32> to memref<*xf32>
  return
}
