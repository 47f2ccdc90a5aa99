// Where a forward pass finds its weights, and how it sees that they changed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "tfmbs/kernels/kernels.hpp"
#include "tfmbs/linear/weight_sources.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::runtime {

// A reference to a weight's memory, which keeps its address from being reused by other weights:
// unless its memory is freed or shrunk all the same (torch: untyped_storage().resize_()).
class RetainedStorage {
 public:
  RetainedStorage() = default;
  RetainedStorage(const RetainedStorage&) = delete;
  RetainedStorage& operator=(const RetainedStorage&) = delete;
  virtual ~RetainedStorage() = default;
  // From the weights' first value to the storage's end, as it is now: another place or fewer bytes
  // once the storage was resized, empty once it was freed. Storage that shrank may lie where it
  // lay.
  [[nodiscard]] virtual std::span<const std::byte> memory() const noexcept = 0;
};

// Gives such a reference.
class StorageOwner {
 public:
  StorageOwner() = default;
  StorageOwner(const StorageOwner&) = delete;
  StorageOwner& operator=(const StorageOwner&) = delete;
  virtual ~StorageOwner() = default;
  [[nodiscard]] virtual std::shared_ptr<const RetainedStorage> retain() const = 0;
};

// A trainable layer's float weights, and how a change of them is seen.
struct WeightSource {
  const void* data{nullptr};  // outputs x depth, row-major, contiguous
  kernels::FloatType type{kernels::FloatType::kFloat32};
  std::uint64_t outputs{0};
  std::uint64_t depth{0};
  // A counter that every visible write raises; none: the weights are constant.
  std::optional<std::int64_t> version{};
  // Compare contents (training) instead of version and address.
  bool by_content{false};
  // No other process writes the memory, even where it is shared.
  bool read_only{false};
  const StorageOwner* owner{nullptr};  // null: the memory outlives the layer

  [[nodiscard]] linear::FloatWeights floats() const noexcept {
    return {data, type, outputs, depth};
  }
};

// Says in `source`, which is as it is made, how a change of it is seen. A weight that counts no
// version (an inference tensor of torch) is constant; contents of few bytes are compared faster
// than a version is asked for. `version` gives none where the weight turns out to count none.
template <typename CountsVersions, typename Version>
void mark_changes(WeightSource& source, const CountsVersions& counts_versions,
                  const Version& version) {
  constexpr std::uint64_t kFewBytes = 8192;
  if (!counts_versions()) return;
  source.by_content =
      source.outputs * source.depth * kernels::float_bytes(source.type) <= kFewBytes;
  if (!source.by_content) source.version = version();
}

}  // namespace tfmbs::runtime

#pragma GCC visibility pop
