// Which weight layout a layer is packed in: two bits a weight while the weights of all layers fit
// the last-level cache, and 1.6 where they come from memory, which then sets the pace. The choice
// is made when a layer is packed and kept until it is packed again.
#pragma once

#include <cstdint>
#include <string_view>

#include "tfmbs/format/error.hpp"
#include "tfmbs/format/weight_panels.hpp"
#include "tfmbs/linear/activation.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::linear {

enum class WeightStorage : std::uint8_t { kAuto, kCached, kStreamed };

[[nodiscard]] std::string_view name_of(WeightStorage storage) noexcept;
// Errors: kInvalidArgument (says which are allowed).
Result<WeightStorage> parse_weight_storage(std::string_view name);

// Process-wide; layers that are packed from now on follow. Thread-safe.
void set_weight_storage(WeightStorage storage) noexcept;
[[nodiscard]] WeightStorage weight_storage() noexcept;

// What the active kernels want for a layer of this activation that is packed now. kAuto counts
// every WeightShare that lives, and has hysteresis: once the weights exceed the cache's share they
// count as streamed until they fall below three quarters of it.
[[nodiscard]] WeightLayout preferred_layout(Activation activation) noexcept;

// A layer's part of the weights that the process holds, counted while it lives. Move-only.
class WeightShare {
 public:
  WeightShare() = default;
  explicit WeightShare(std::uint64_t weights) noexcept;
  WeightShare(WeightShare&& other) noexcept;
  WeightShare& operator=(WeightShare&& other) noexcept;
  WeightShare(const WeightShare&) = delete;
  WeightShare& operator=(const WeightShare&) = delete;
  ~WeightShare();

 private:
  std::uint64_t weights_{0};
};

}  // namespace tfmbs::linear

#pragma GCC visibility pop
