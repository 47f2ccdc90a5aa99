#include "tfmbs/runtime/packed_source.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "tfmbs/format/large_memory.hpp"

namespace tfmbs::runtime {
namespace {

Error refuse(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

bool is_aligned(const void* memory) noexcept {
  return reinterpret_cast<std::uintptr_t>(memory) % kPanelBytes == 0;
}

class Memory final {
 public:
  Memory(const void* from, std::size_t bytes)
      : bytes_(std::max<std::size_t>(bytes, 1)), data_(large_memory::allocate(bytes_)) {
    std::memcpy(data_, from, bytes);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { large_memory::release(data_, bytes_); }
  [[nodiscard]] const void* data() const noexcept { return data_; }

 private:
  std::size_t bytes_;
  void* data_;
};

}  // namespace

AlignedPacked align(const PackedSource& source) {
  AlignedPacked aligned{source.panels, source.groups(), nullptr, nullptr};
  if (!is_aligned(source.panels.bytes) && source.panels.depth != 0) {
    auto copy = std::make_shared<const Memory>(source.panels.bytes, source.panels.size());
    aligned.panels.bytes = static_cast<const std::uint8_t*>(copy->data());
    aligned.panels_copy = std::move(copy);
  }
  if (source.group != 0 && !is_aligned(source.scales.data())) {
    auto copy = std::make_shared<const Memory>(source.scales.data(), source.scales.size_bytes());
    aligned.groups.values = static_cast<const float*>(copy->data());
    aligned.groups_copy = std::move(copy);
  }
  return aligned;
}

Status check_packed(const PackedSource& source) {
  const std::string layout = name_of(source.panels.layout);
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
  return {};
}

}  // namespace tfmbs::runtime
