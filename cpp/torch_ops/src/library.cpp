// The library of ops, namespace `tfmbs`. This folder alone sees torch, through the LibTorch stable
// ABI. Fakes, autograd and effects are registered in python/pytfmbs/ops.
#include <torch/csrc/stable/library.h>

#include "tfmbs/execution/executor.hpp"
#include "torch_executor.hpp"

// Work of the whole process runs on torch's pool once this library is loaded.
STABLE_TORCH_LIBRARY(tfmbs, m) {
  static_cast<void>(m);
  static const auto* const executor = new tfmbs::TorchExecutor;  // outlives every thread
  tfmbs::execution::set_process_executor(*executor);
}
