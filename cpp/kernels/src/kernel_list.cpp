// The list, as C++ has it: dispatch, tests and benchmarks all derive from it. It is made of
// variants.json and of the files beside this one.
#include <cstddef>

#include "kernel_operations.hpp"
#include "kernel_table.hpp"
#include "tfmbs/kernels/fingerprint.hpp"

namespace tfmbs::kernels {

// Every operation is a folder of src/, and so is null in no variant. A folder without a member does
// not compile.
static_assert(sizeof(KernelSet) == offsetof(KernelSet, int8_scratch) + sizeof(ScratchUse) +
                                       kOperations * sizeof(void (*)()),
              "KernelSet has an operation that has no folder");

std::span<const KernelSet> all_kernels() noexcept { return kKernels; }

std::uint64_t fingerprint(const void* data, std::size_t bytes) noexcept {
  return active().fingerprint(data, bytes);
}

}  // namespace tfmbs::kernels
