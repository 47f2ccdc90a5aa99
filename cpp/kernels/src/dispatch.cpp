#include <atomic>
#include <cstdlib>
#include <string>

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::kernels {
namespace {

constexpr const char* kVariable = "TFMBS_KERNEL";

const KernelSet* find(std::string_view name) noexcept {
  for (const KernelSet& set : all_kernels()) {
    if (set.name == name) return &set;
  }
  return nullptr;
}

const KernelSet& fastest() noexcept {
  const KernelSet* best = &all_kernels().front();
  for (const KernelSet& set : all_kernels()) {
    if (set.supported()) best = &set;
  }
  return *best;
}

Error cannot_select(std::string_view name, std::string_view source, bool known) {
  std::string message(source);
  message += " \"" + std::string(name) + "\" ";
  message += known ? "is not supported by this CPU" : "names no kernel set";
  message += "; allowed here:";
  const char* separator = " ";
  for (const KernelSet& set : all_kernels()) {
    if (!set.supported()) continue;
    message += separator + std::string(set.name);
    separator = ", ";
  }
  return {.code = ErrorCode::kInvalidArgument, .message = std::move(message)};
}

Result<const KernelSet*> choose(std::string_view name, std::string_view source) {
  const KernelSet* set = find(name);
  if (set == nullptr || !set->supported()) return cannot_select(name, source, set != nullptr);
  return set;
}

struct Selection {
  std::atomic<const KernelSet*> set;
  Status status;

  Selection() : set(&all_kernels().front()) {
    const char* name = std::getenv(kVariable);
    if (name == nullptr || *name == '\0') {
      set.store(&fastest());
      return;
    }
    Result<const KernelSet*> chosen = choose(name, kVariable);
    if (chosen.ok()) {
      set.store(chosen.value());
    } else {
      status = chosen.error();
    }
  }
};

// Never destroyed: kernels may still run on other threads while the process ends.
Selection& selection() {
  static Selection* const instance = new Selection;
  return *instance;
}

}  // namespace

const KernelSet& active() noexcept { return *selection().set.load(std::memory_order_relaxed); }

Status select_status() { return selection().status; }

Status select(std::string_view name) {
  Result<const KernelSet*> chosen = choose(name, "kernel set");
  if (!chosen.ok()) return chosen.error();
  selection().set.store(chosen.value(), std::memory_order_relaxed);
  return {};
}

}  // namespace tfmbs::kernels
