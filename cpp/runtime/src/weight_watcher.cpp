#include "tfmbs/runtime/weight_watcher.hpp"

#include <bit>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>

#include "shared_memory.hpp"
#include "tfmbs/kernels/fingerprint.hpp"

namespace tfmbs::runtime {
namespace {

std::uint64_t source_bytes(const WeightSource& source) {
  return source.outputs * source.depth * kernels::float_bytes(source.type);
}

bool holds(std::span<const std::byte> memory, const WeightSource& source) noexcept {
  return memory.data() == source.data && memory.size() >= source_bytes(source);
}

// Sixteen values spread over the weights. Memory that was freed and came back at its address, with
// other values and the version as it was (FSDP gathers parameters so), is told by it.
std::uint64_t spread_sample(const WeightSource& source) noexcept {
  constexpr std::uint64_t kValues = 16;
  const std::uint64_t count = source.outputs * source.depth;
  if (count == 0) return 0;
  const std::size_t size = kernels::float_bytes(source.type);
  const auto* values = static_cast<const std::byte*>(source.data);
  std::uint64_t sample = 0;
  for (std::uint64_t i = 0; i < kValues; ++i) {
    std::uint64_t value = 0;
    std::memcpy(&value, values + (count - 1) * i / (kValues - 1) * size, size);
    sample = (std::rotl(sample, 23) ^ value) * 0x9E3779B97F4A7C15U;
  }
  return sample;
}

}  // namespace

bool WeightWatcher::same_place(const WeightSource& source) const noexcept {
  if (!seen_ || data_ != source.data || type_ != source.type || version_ != source.version ||
      (owner_ && !holds(owner_->memory(), source))) {
    return false;
  }
  return source.by_content || others_write_ || sample_ == spread_sample(source);
}

WeightWatcher::Look WeightWatcher::look(const WeightSource& source) const {
  const bool by_content = source.by_content || seen_by_content_ || others_write_;
  if (!by_content) {
    return {same_place(source) ? Verdict::kCurrent : Verdict::kChanged, std::nullopt};
  }
  const std::uint64_t fingerprint = kernels::fingerprint(source.data, source_bytes(source));
  const bool same = seen_ && type_ == source.type && fingerprint_ == fingerprint;
  return {same ? Verdict::kMoved : Verdict::kChanged, fingerprint};
}

bool WeightWatcher::is_current(const WeightSource& source) const {
  // Only the held storage can say whether the source still has its memory.
  if (!owner_ || !same_place(source) || seen_by_content_ != source.by_content) return false;
  return !(source.by_content || others_write_) ||
         fingerprint_ == kernels::fingerprint(source.data, source_bytes(source));
}

std::shared_ptr<const RetainedStorage> WeightWatcher::note(const WeightSource& source,
                                                           const Look& look) {
  std::shared_ptr<const RetainedStorage> before;
  const bool moved = !same_place(source) || !owner_;
  if (moved) {
    auto owner = source.owner == nullptr ? nullptr : source.owner->retain();
    before = std::exchange(owner_, std::move(owner));
  }
  // Asked once a place, where it matters.
  const bool first_by_version = !source.by_content && (moved || seen_by_content_);
  if (first_by_version) {
    others_write_ = !source.read_only && is_shared_memory(source.data, source_bytes(source));
  }
  seen_ = true;
  data_ = source.data;
  type_ = source.type;
  version_ = source.version;
  fingerprint_ = look.fingerprint;
  if (others_write_ && !fingerprint_) {
    fingerprint_ = kernels::fingerprint(source.data, source_bytes(source));
  }
  sample_ = spread_sample(source);
  seen_by_content_ = source.by_content;
  return before;
}

std::shared_ptr<const RetainedStorage> WeightWatcher::forget() {
  auto owner = std::exchange(owner_, nullptr);
  *this = {};
  return owner;
}

}  // namespace tfmbs::runtime
