// Where a forward finds its weights, and how it sees that they changed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::runtime {

// Gives a reference that keeps the weight's memory from being freed, and so its address from being
// reused by other weights.
class StorageOwner {
 public:
  StorageOwner() = default;
  StorageOwner(const StorageOwner&) = delete;
  StorageOwner& operator=(const StorageOwner&) = delete;
  virtual ~StorageOwner() = default;
  [[nodiscard]] virtual std::shared_ptr<const void> retain() const = 0;
};

// Row-major weights, outputs x depth, contiguous.
struct WeightSource {
  const void* data{nullptr};
  kernels::FloatType type{kernels::FloatType::kFloat32};
  std::uint64_t outputs{0};
  std::uint64_t depth{0};
  // A counter that every visible write raises; none: the weights are constant.
  std::optional<std::int64_t> version{};
  // Compare contents (training) instead of version and address.
  bool by_content{false};
  const StorageOwner* owner{nullptr};  // null: the memory outlives the layer
};

// Contents of so few bytes are compared faster than a version is asked for.
[[nodiscard]] inline bool compared_by_content(const WeightSource& source) noexcept {
  constexpr std::uint64_t kFewBytes = 8192;
  return source.outputs * source.depth * kernels::float_bytes(source.type) <= kFewBytes;
}

// Weights that somebody else quantized: trits, row-major, and one scale or one an output. Always
// compared by content.
struct TritSource {
  const std::int8_t* trits{nullptr};
  std::uint64_t outputs{0};
  std::uint64_t depth{0};
  const double* scales{nullptr};
  std::size_t scale_count{1};
  const std::uint8_t* nan_outputs{nullptr};  // 1 where an output is NaN, one each; null: none is
};

// Constant weights as they are stored: the trits of the matrix, row-major, as one PT-5 stream.
struct StreamSource {
  std::span<const std::uint8_t> bytes{};  // pt5_bytes(outputs * depth) of them
  std::uint64_t outputs{0};
  std::uint64_t depth{0};
  std::vector<double> scales{};  // one, or one an output
};

}  // namespace tfmbs::runtime
