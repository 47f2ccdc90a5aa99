// RUN: mlir-opt --load-dialect-plugin=%tfmbs_plugin --verify-diagnostics --split-input-file --mlir-print-op-on-diagnostic=false %s

// expected-error@+1 {{'tfmbs.weights' op 6 trits take 2 bytes of PT-5, but there are 3}}
%w = tfmbs.weights dense<[5, 2, 0]> : tensor<3xi8> -> tensor<2x3x!tfmbs.trit>

// -----

// expected-error@+1 {{'tfmbs.weights' op 10 trits take 2 bytes of PT-5, but there are 1}}
%w = tfmbs.weights dense<5> : tensor<1xi8> -> tensor<2x5x!tfmbs.trit>

// -----

// expected-error@+1 {{'tfmbs.weights' op byte 1 is 243, an encoding fault; PT-5 bytes are at most 242}}
%w = tfmbs.weights dense<[5, -13]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>

// -----

// expected-error@+1 {{'tfmbs.weights' op byte 0 is 255, an encoding fault}}
%w = tfmbs.weights dense<-1> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>

// -----

// expected-error@+1 {{'tfmbs.weights' op byte 2 is 255, an encoding fault}}
%w = tfmbs.weights dense_resource<bad> : tensor<3xi8> -> tensor<3x5x!tfmbs.trit>

{-# dialect_resources: { builtin: { bad: "0x0100000005F2FF" } } #-}

// -----

// expected-error@+1 {{'tfmbs.weights' op resource holds 2 bytes; its type says 3}}
%w = tfmbs.weights dense_resource<short> : tensor<3xi8> -> tensor<3x5x!tfmbs.trit>

{-# dialect_resources: { builtin: { short: "0x0100000005F2" } } #-}

// -----

// expected-error@+1 {{'tfmbs.weights' op finds no data for dense_resource<nowhere> : tensor<3xi8>}}
%w = tfmbs.weights dense_resource<nowhere> : tensor<3xi8> -> tensor<3x5x!tfmbs.trit>

// -----

// expected-error@+1 {{'tfmbs.weights' op takes PT-5 bytes as a vector of i8, not 'tensor<2xi32>'}}
%w = tfmbs.weights dense<[5, 2]> : tensor<2xi32> -> tensor<2x3x!tfmbs.trit>

// -----

// expected-error@+1 {{'tfmbs.weights' op takes PT-5 bytes as a vector of i8, not 'tensor<2xui8>'}}
%w = tfmbs.weights dense<[5, 2]> : tensor<2xui8> -> tensor<2x3x!tfmbs.trit>

// -----

// expected-error@+1 {{'tfmbs.weights' op takes PT-5 bytes as a vector of i8, not 'tensor<1x2xi8>'}}
%w = tfmbs.weights dense<[[5, 2]]> : tensor<1x2xi8> -> tensor<2x3x!tfmbs.trit>

// -----

// expected-error@+1 {{'tfmbs.weights' op takes PT-5 bytes as a vector of i8, not 'tensor<2xf32>'}}
%w = tfmbs.weights dense<[5.0, 2.0]> : tensor<2xf32> -> tensor<2x3x!tfmbs.trit>

// -----

// expected-error@+1 {{'tfmbs.weights' op takes dense or dense_resource elements}}
%w = tfmbs.weights sparse<[[0]], [5]> : tensor<2xi8> -> tensor<2x3x!tfmbs.trit>

// -----

// expected-error@+1 {{'tfmbs.weights' op attribute 'value' failed to satisfy constraint: constant vector/tensor attribute}}
%w = "tfmbs.weights"() {value = 7 : i8} : () -> tensor<2x3x!tfmbs.trit>

// -----

// expected-error@+1 {{'tfmbs.weights' op requires attribute 'value'}}
%w = "tfmbs.weights"() : () -> tensor<2x3x!tfmbs.trit>

// -----

// expected-error@+1 {{'tfmbs.weights' op needs a static shape, but gives 'tensor<?x3x!tfmbs.trit>'}}
%w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<?x3x!tfmbs.trit>

// -----

// expected-error@+1 {{'tfmbs.weights' op result #0 must be matrix of !tfmbs.trit, but got 'tensor<6x!tfmbs.trit>'}}
%w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<6x!tfmbs.trit>

// -----

// expected-error@+1 {{'tfmbs.weights' op result #0 must be matrix of !tfmbs.trit, but got 'tensor<*x!tfmbs.trit>'}}
%w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<*x!tfmbs.trit>

// -----

// expected-error@+1 {{'tfmbs.weights' op result #0 must be matrix of !tfmbs.trit, but got 'memref<*x!tfmbs.trit>'}}
%w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> memref<*x!tfmbs.trit>

// -----

// expected-error@+1 {{'tfmbs.weights' op result #0 must be matrix of !tfmbs.trit, but got 'tensor<2x3xi8>'}}
%w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3xi8>

// -----

// expected-error@+1 {{'tfmbs.weights' op result #0 must be matrix of !tfmbs.trit, but got '!tfmbs.trit'}}
%w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> !tfmbs.trit

// -----

// expected-error@+1 {{'tfmbs.weights' op gives contiguous rows, not 'memref<2x3x!tfmbs.trit, strided<[1, 2]>>'}}
%w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> memref<2x3x!tfmbs.trit, strided<[1, 2]>>

// -----

// Sizes whose product no i64 holds.
// expected-error@+1 {{'tfmbs.weights' op gives 'tensor<4611686018427387904x4x!tfmbs.trit>'; at most 281474976710656 trits are a matrix}}
%w = tfmbs.weights dense<> : tensor<0xi8> -> tensor<4611686018427387904x4x!tfmbs.trit>

// -----

// expected-error@+1 {{unknown  type `tritt` in dialect `tfmbs`}}
%w = tfmbs.weights dense<[5, 2]> : tensor<2xi8> -> tensor<2x3x!tfmbs.tritt>
