#include "tfmbs/linear/packing_policy.hpp"

#include <atomic>
#include <string>
#include <utility>

#include "tfmbs/kernels/cache.hpp"
#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::linear {
namespace {

constexpr WeightStorage kAll[] = {WeightStorage::kAuto, WeightStorage::kCached,
                                  WeightStorage::kStreamed};

std::atomic<WeightStorage> g_storage{WeightStorage::kAuto};
std::atomic<std::uint64_t> g_weights{0};
std::atomic<bool> g_streams{false};  // kAuto's last answer

// Weights, at two bits each, that leave a quarter of the last-level cache for what they multiply.
// Counted in weights, not in bytes: the answer does not depend on the layouts that it led to.
std::uint64_t most_cached_weights() noexcept {
  static const std::uint64_t most = std::uint64_t{kernels::last_level_cache_bytes()} * 3;
  return most;
}

bool weights_stream() noexcept {
  const std::uint64_t most = most_cached_weights();
  const std::uint64_t weights = g_weights;
  if (weights > most) {
    g_streams = true;
  } else if (weights < most / 4 * 3) {
    g_streams = false;
  }
  return g_streams;
}

}  // namespace

std::string_view name_of(WeightStorage storage) noexcept {
  switch (storage) {
    case WeightStorage::kAuto:
      return "auto";
    case WeightStorage::kCached:
      return "cached";
    case WeightStorage::kStreamed:
      break;
  }
  return "streamed";
}

Result<WeightStorage> parse_weight_storage(std::string_view name) {
  for (const WeightStorage storage : kAll) {
    if (name == name_of(storage)) return storage;
  }
  return Error{ErrorCode::kInvalidArgument, "weight storage is '" + std::string(name) +
                                                "'; allowed are 'auto', 'cached', 'streamed'"};
}

void set_weight_storage(WeightStorage storage) noexcept { g_storage = storage; }
WeightStorage weight_storage() noexcept { return g_storage; }

WeightLayout preferred_layout(Activation activation) noexcept {
  const auto& layouts = mode_of(activation).layouts();
  switch (weight_storage()) {
    case WeightStorage::kCached:
      return layouts.cached;
    case WeightStorage::kStreamed:
      return layouts.streamed;
    case WeightStorage::kAuto:
      break;
  }
  return weights_stream() ? layouts.streamed : layouts.cached;
}

WeightShare::WeightShare(std::uint64_t weights) noexcept : weights_(weights) {
  g_weights += weights;
}
WeightShare::WeightShare(WeightShare&& other) noexcept
    : weights_(std::exchange(other.weights_, 0)) {}
WeightShare& WeightShare::operator=(WeightShare&& other) noexcept {
  std::swap(weights_, other.weights_);
  return *this;
}
WeightShare::~WeightShare() { g_weights -= weights_; }

}  // namespace tfmbs::linear
