// How a layer runs on the device: its groups, passes, chunks and jobs, and where each lies. The
// stepped driver, the closed form and the bank images all read it here (docs/fabric-layers.md).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "tfmbs/format/geometry.hpp"
#include "tfmbs/format/pt5.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::placement {

// Where a layer's weights lie in Bank A, the same words in every tile of the mask.
struct Placement {
  std::uint64_t tile_mask{1};
  std::uint32_t first_word{0};
  std::uint32_t words{0};  // resident: all of the layer's in a tile; streamed: the window
  bool streamed{false};

  friend bool operator==(const Placement&, const Placement&) = default;
};

struct LayerShape {
  std::uint64_t outputs{0};
  std::uint64_t depth{0};
  std::uint32_t planes{1};
  // Depths that share a scale: a *scale group*; the last one may be shorter. 0: all depths do.
  std::uint32_t group_depth{0};

  friend bool operator==(const LayerShape&, const LayerShape&) = default;
};

// The lowest min(tiles, ceil(outputs / lanes)) bits, at least one.
[[nodiscard]] std::uint64_t default_tile_mask(const Geometry& geometry,
                                              std::uint64_t outputs) noexcept;
// Words of Bank A that a resident layer takes in each tile of its mask (may exceed any bank).
// Precondition: sizes within format/limits.hpp, a mask that is not 0.
[[nodiscard]] std::uint64_t resident_words(const Geometry& geometry, std::uint64_t outputs,
                                           std::uint64_t depth, std::uint64_t tile_mask) noexcept;
// Fewest words that a streaming window can have: one activation word of depths.
[[nodiscard]] std::uint32_t min_window_words(const Geometry& geometry) noexcept;
// Words that a streaming window wants: half a bank, for ping-pong.
[[nodiscard]] std::uint32_t wanted_window_words(const Geometry& geometry) noexcept;

// A run of up to `lanes` outputs on one tile in one pass.
struct Group {
  std::uint32_t tile{0};
  std::uint64_t first_output{0};
  std::uint32_t lanes{0};
};

class Schedule {
 public:
  // Preconditions: outputs, depth > 0; the mask has a bit and none beyond the tiles; the placement
  // lies in the bank, and a streamed one has at least min_window_words.
  Schedule(const Geometry& geometry, const LayerShape& shape, const Placement& placement) noexcept;

  [[nodiscard]] const Geometry& geometry() const noexcept { return geometry_; }
  [[nodiscard]] const LayerShape& shape() const noexcept { return shape_; }
  [[nodiscard]] const Placement& placement() const noexcept { return placement_; }
  [[nodiscard]] bool ping_pong() const noexcept { return ping_pong_; }

  // Tiles of the mask, in bit order; slot i of a pass is tile(i).
  [[nodiscard]] std::uint32_t tile_count() const noexcept { return tile_count_; }
  [[nodiscard]] std::uint32_t tile(std::uint32_t slot) const noexcept { return tiles_[slot]; }
  [[nodiscard]] std::uint64_t groups() const noexcept { return groups_; }
  [[nodiscard]] std::uint64_t passes() const noexcept { return passes_; }
  // Tiles that pass p uses (all of them but perhaps in the last pass).
  [[nodiscard]] std::uint32_t pass_tiles(std::uint64_t p) const noexcept {
    return static_cast<std::uint32_t>(
        std::min<std::uint64_t>(tile_count_, groups_ - p * tile_count_));
  }
  [[nodiscard]] Group group(std::uint64_t p, std::uint32_t slot) const noexcept;
  // Passes that use a slot of the first pass, and the outputs that it computes in them.
  [[nodiscard]] std::uint64_t slot_passes(std::uint32_t slot) const noexcept {
    return slot < pass_tiles(passes_ - 1) ? passes_ : passes_ - 1;
  }
  [[nodiscard]] std::uint64_t slot_outputs(std::uint32_t slot) const noexcept {
    const std::uint64_t last = slot_passes(slot) - 1;
    return last * geometry_.lanes() + group(last, slot).lanes;
  }
  // Outputs of pass p: its result words.
  [[nodiscard]] std::uint64_t pass_outputs(std::uint64_t p) const noexcept {
    const std::uint64_t per_pass = std::uint64_t{tile_count_} * geometry_.lanes();
    return std::min(per_pass, shape_.outputs - p * per_pass);
  }

  // Scale groups, runs of depths: one where the layer has no group scales.
  [[nodiscard]] std::uint64_t scale_groups() const noexcept { return scale_groups_; }
  [[nodiscard]] std::uint64_t scale_group(std::uint64_t c) const noexcept {
    return c / group_chunks_;
  }
  [[nodiscard]] std::uint64_t scale_group_begin(std::uint64_t g) const noexcept {
    return g * group_depth_;
  }

  // Chunks of depth, none across the end of a scale group. Chunk 0 is the largest; all of a group's
  // are as large but perhaps its last.
  [[nodiscard]] std::uint32_t chunk_depth() const noexcept { return chunk_depth_; }
  [[nodiscard]] std::uint64_t chunks() const noexcept { return chunks_; }
  [[nodiscard]] std::uint64_t chunk_begin(std::uint64_t c) const noexcept {
    return scale_group_begin(scale_group(c)) + c % group_chunks_ * chunk_depth_;
  }
  [[nodiscard]] std::uint32_t chunk_depths(std::uint64_t c) const noexcept {
    const std::uint64_t group_end = std::min(scale_group_begin(scale_group(c) + 1), shape_.depth);
    return static_cast<std::uint32_t>(
        std::min<std::uint64_t>(chunk_depth_, group_end - chunk_begin(c)));
  }
  // A group's first chunk takes no partial sums in; its last one's sums are the group's.
  [[nodiscard]] bool begins_scale_group(std::uint64_t c) const noexcept {
    return c % group_chunks_ == 0;
  }
  [[nodiscard]] bool ends_scale_group(std::uint64_t c) const noexcept {
    return c + 1 == chunks_ || begins_scale_group(c + 1);
  }

  // Words of one tile's weights for a chunk, and of one sample's activations for it.
  [[nodiscard]] std::uint32_t weight_words(std::uint64_t c) const noexcept {
    return chunk_depths(c) * geometry_.words_per_depth();
  }
  [[nodiscard]] std::uint32_t activation_words(std::uint64_t c) const noexcept {
    return shape_.planes * static_cast<std::uint32_t>(pt5_words(chunk_depths(c)));
  }
  // Words of one tile's weights for a whole pass.
  [[nodiscard]] std::uint64_t tile_pass_words() const noexcept {
    return shape_.depth * geometry_.words_per_depth();
  }
  // First word in Bank A of chunk c of pass p.
  [[nodiscard]] std::uint32_t weight_word(std::uint64_t p, std::uint64_t c) const noexcept;

  // Job q = (p * chunks + c) * samples + m; its first word in Bank B.
  [[nodiscard]] std::uint64_t job(std::uint64_t p, std::uint64_t c, std::uint64_t m,
                                  std::uint64_t samples) const noexcept {
    return (p * chunks() + c) * samples + m;
  }
  [[nodiscard]] std::uint32_t activation_word(std::uint64_t job) const noexcept {
    return (job % 2 != 0) ? activation_words(0) : 0;
  }

 private:
  Geometry geometry_;
  LayerShape shape_;
  Placement placement_;
  std::array<std::uint8_t, Geometry::kMaxTiles> tiles_{};
  std::uint32_t tile_count_{0};
  std::uint64_t groups_{0};
  std::uint64_t passes_{0};
  std::uint64_t group_depth_{0};  // the layer's depth where it has no group scales
  std::uint64_t scale_groups_{0};
  std::uint64_t group_chunks_{0};  // of a whole scale group
  std::uint64_t chunks_{0};
  std::uint32_t chunk_depth_{0};
  bool ping_pong_{false};
};

}  // namespace tfmbs::placement

#pragma GCC visibility pop
