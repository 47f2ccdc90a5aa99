#include "tfmbs/runtime/packed_source.hpp"

#include <string>
#include <utility>

namespace tfmbs::runtime {
namespace {

Error refuse(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

bool is_aligned(const void* memory) noexcept {
  return reinterpret_cast<std::uintptr_t>(memory) % kPanelBytes == 0;
}

}  // namespace

Status check_packed(const PackedSource& source) {
  const std::string layout = name_of(source.panels.layout);
  if (!is_aligned(source.panels.bytes)) {
    return refuse("packed weights must lie at a multiple of 64 bytes");
  }
  if (source.group == 0) {
    if (source.scales.size() == 1 || source.scales.size() == source.panels.outputs) return {};
    return refuse(std::to_string(source.scales.size()) + " scales; allowed are 1 and " +
                  std::to_string(source.panels.outputs) + ", one an output");
  }
  if (!is_scale_group(source.group)) {
    return refuse("group_size is " + std::to_string(source.group) +
                  "; allowed are 32, 64, 128 and 256");
  }
  if (!takes_group_scales(source.panels.layout)) {
    return refuse("weights packed as " + layout + " cannot have group scales");
  }
  if (source.scales.size() != source.groups().size()) {
    return refuse(std::to_string(source.scales.size()) + " group scales in the kernels' order; " +
                  std::to_string(source.groups().size()) + " are needed");
  }
  if (!is_aligned(source.scales.data())) {
    return refuse("group scales must lie at a multiple of 64 bytes");
  }
  return {};
}

}  // namespace tfmbs::runtime
