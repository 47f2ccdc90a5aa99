// The part of a module that talks to libtfmbs (cpp/c_interface/include/tfmbs/c/layer.h): slots,
// constants, and one function a layer that defines it and runs it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/SymbolTable.h"
#include "tfmbs-mlir/Dialect/TfmbsOps.h"

namespace tfmbs::ir {

class RuntimeModule {
 public:
  // `fabric` is a device's specification as text.
  RuntimeModule(mlir::ModuleOp module, llvm::StringRef fabric);

  // Diagnostics where the module has symbols of ours already.
  mlir::LogicalResult check();

  // A private function (input, [bias,] output) of contiguous memrefs that runs the layer. Memrefs,
  // not pointers, go into it, so that every pass knows how long they must live.
  mlir::FailureOr<mlir::func::FuncOp> layer_function(LinearOp op, mlir::Type input, mlir::Type bias,
                                                     mlir::Type output);

  // Adds tfmbs_release.
  void finish();

 private:
  // A layer as it is defined: its slot, and the constants that define it.
  struct Layer {
    mlir::LLVM::GlobalOp slot;
    mlir::LLVM::GlobalOp name;
    mlir::LLVM::GlobalOp weights;
    mlir::LLVM::GlobalOp scales;
    std::int64_t outputs{0};
    std::int64_t depth{0};
    std::int64_t scale_count{0};
    mlir::Type scale_type{};
    Activation activation{Activation::Ternary};
    std::uint64_t tile_mask{0};
    std::int64_t weight_address{-1};
  };

  mlir::FailureOr<std::size_t> layer_of(LinearOp op);
  // PT-5 bytes of a layer's weights. Diagnostics where they are no constant, or no trits.
  mlir::FailureOr<mlir::ElementsAttr> packed_weights(LinearOp op);
  mlir::LLVM::GlobalOp global(llvm::StringRef name, mlir::Type type, bool constant,
                              mlir::Attribute value);
  mlir::LLVM::GlobalOp text(llvm::StringRef name, llvm::StringRef value);
  mlir::LLVM::GlobalOp array(llvm::StringRef name, mlir::ElementsAttr elements);
  mlir::LLVM::LLVMFuncOp declare(llvm::StringRef name, mlir::Type result,
                                 llvm::ArrayRef<mlir::Type> arguments);
  void write_body(LinearOp op, const Layer& layer, mlir::func::FuncOp function);

  mlir::ModuleOp module_;
  mlir::SymbolTable symbols_;
  std::string fabric_text_;
  mlir::OpBuilder builder_;
  mlir::Location location_;
  mlir::Type pointer_;
  mlir::LLVM::GlobalOp fabric_;
  std::vector<Layer> layers_;
  llvm::DenseMap<mlir::Attribute, std::size_t> known_layers_;
  llvm::DenseMap<mlir::Attribute, mlir::func::FuncOp> functions_;
};

}  // namespace tfmbs::ir
