// The names and the rules of what a layer's ops carry, whatever dialect they have reached.
#pragma once

#include <cstdint>

#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/ADT/StringRef.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/Operation.h"

namespace tfmbs::ir {

inline constexpr llvm::StringLiteral kTileMask = "tile_mask";
inline constexpr llvm::StringLiteral kWeightAddress = "weight_addr";
inline constexpr llvm::StringLiteral kTelemetry = "telemetry";
// Entries of `telemetry`.
inline constexpr llvm::StringLiteral kLayer = "layer";
inline constexpr llvm::StringLiteral kSparsity = "sparsity";
inline constexpr llvm::StringLiteral kFused = "fused";

// A telemetry dictionary with a layer's name and a sparsity in 0...1.
mlir::LogicalResult verify_telemetry(mlir::DictionaryAttr telemetry,
                                     llvm::function_ref<mlir::InFlightDiagnostic()> error);
// A mask with a bit, an aligned address.
mlir::LogicalResult verify_layer_attributes(mlir::Operation* op, std::uint64_t tile_mask,
                                            std::optional<std::uint64_t> weight_address,
                                            mlir::DictionaryAttr telemetry);

// Copies tile_mask, weight_addr and telemetry, where they are, to what an op is lowered to.
void copy_layer_attributes(mlir::Operation* from, mlir::Operation* to);

}  // namespace tfmbs::ir
