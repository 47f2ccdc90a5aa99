#include "tfmbs/placement/schedule.hpp"

#include <bit>

namespace tfmbs::placement {
namespace {

constexpr std::uint32_t whole_words_of_depth(std::uint32_t depths) noexcept {
  return depths / static_cast<std::uint32_t>(kTritsPerWord) *
         static_cast<std::uint32_t>(kTritsPerWord);
}

constexpr std::uint64_t group_count(const Geometry& geometry, std::uint64_t outputs) noexcept {
  return (outputs + geometry.lanes() - 1) / geometry.lanes();
}

}  // namespace

std::uint64_t default_tile_mask(const Geometry& geometry, std::uint64_t outputs) noexcept {
  const std::uint64_t tiles =
      std::clamp<std::uint64_t>(group_count(geometry, outputs), 1, geometry.tiles());
  return tiles == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << tiles) - 1;
}

std::uint64_t resident_words(const Geometry& geometry, std::uint64_t outputs, std::uint64_t depth,
                             std::uint64_t tile_mask) noexcept {
  const auto tiles = static_cast<std::uint64_t>(std::popcount(tile_mask));
  const std::uint64_t passes = (group_count(geometry, outputs) + tiles - 1) / tiles;
  return depth * geometry.words_per_depth() * passes;
}

std::uint32_t min_window_words(const Geometry& geometry) noexcept {
  return static_cast<std::uint32_t>(kTritsPerWord) * geometry.words_per_depth();
}

std::uint32_t wanted_window_words(const Geometry& geometry) noexcept {
  const std::uint32_t half = geometry.bank_depth() / 2 * geometry.words_per_depth();
  return std::max(half, min_window_words(geometry));
}

Schedule::Schedule(const Geometry& geometry, const LayerShape& shape,
                   const Placement& placement) noexcept
    : geometry_(geometry),
      shape_(shape),
      placement_(placement),
      groups_(group_count(geometry, shape.outputs)) {
  for (std::uint64_t left = placement.tile_mask; left != 0; left &= left - 1) {
    tiles_[tile_count_++] = static_cast<std::uint8_t>(std::countr_zero(left));
  }
  std::uint32_t depth_limit = whole_words_of_depth(geometry.bank_depth());
  if (placement.streamed) {
    const std::uint32_t window = placement.words / geometry.words_per_depth();
    ping_pong_ = window >= geometry.bank_depth() / 2 && window >= 2 * kTritsPerWord;
    depth_limit = whole_words_of_depth(ping_pong_ ? window / 2 : window);
  }
  group_depth_ = shape.group_depth == 0 ? shape.depth
                                        : std::min<std::uint64_t>(shape.group_depth, shape.depth);
  chunk_depth_ = static_cast<std::uint32_t>(std::min<std::uint64_t>(depth_limit, group_depth_));
  passes_ = (groups_ + tile_count_ - 1) / tile_count_;
  scale_groups_ = (shape.depth + group_depth_ - 1) / group_depth_;
  group_chunks_ = (group_depth_ + chunk_depth_ - 1) / chunk_depth_;
  const std::uint64_t last_group = shape.depth - (scale_groups_ - 1) * group_depth_;
  chunks_ = (scale_groups_ - 1) * group_chunks_ + (last_group + chunk_depth_ - 1) / chunk_depth_;
}

Group Schedule::group(std::uint64_t p, std::uint32_t slot) const noexcept {
  const std::uint64_t first = (p * tile_count_ + slot) * geometry_.lanes();
  return {tiles_[slot], first,
          static_cast<std::uint32_t>(
              std::min<std::uint64_t>(geometry_.lanes(), shape_.outputs - first))};
}

std::uint32_t Schedule::weight_word(std::uint64_t p, std::uint64_t c) const noexcept {
  const std::uint64_t words_per_depth = geometry_.words_per_depth();
  if (!placement_.streamed) {
    return static_cast<std::uint32_t>(placement_.first_word +
                                      words_per_depth * (shape_.depth * p + chunk_begin(c)));
  }
  const std::uint64_t slot = ping_pong_ ? (p * chunks() + c) % 2 : 0;
  return static_cast<std::uint32_t>(placement_.first_word + slot * weight_words(0));
}

}  // namespace tfmbs::placement
