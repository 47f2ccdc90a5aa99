// A layer's depths in *fields*, as the engine fetches them: 15 depths a field from the first depth
// of each scale group on, so that a group's last field may be shorter and no field lies in two
// groups.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/kernels/kernels.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::device {

class DepthFields {
 public:
  DepthFields() = default;
  // group_depth 0: one group.
  DepthFields(std::size_t depth, std::size_t group_depth) noexcept
      : depth_(depth),
        group_depth_(group_depth == 0 ? std::max<std::size_t>(depth, 1)
                                      : std::min(group_depth, std::max<std::size_t>(depth, 1))),
        group_fields_(kernels::fields_of(group_depth_)),
        count_(depth / group_depth_ * group_fields_ + kernels::fields_of(depth % group_depth_)) {}

  // Several groups. Else the fields are those of the kernels: 15 depths each, from depth 0 on.
  [[nodiscard]] bool grouped() const noexcept { return group_depth_ < depth_; }
  [[nodiscard]] std::size_t depth() const noexcept { return depth_; }
  [[nodiscard]] std::size_t group_depth() const noexcept { return group_depth_; }
  [[nodiscard]] std::size_t group_fields() const noexcept { return group_fields_; }
  [[nodiscard]] std::size_t count() const noexcept { return count_; }

  [[nodiscard]] std::size_t begin(std::size_t field) const noexcept {
    return field / group_fields_ * group_depth_ + field % group_fields_ * kernels::kFieldTrits;
  }
  [[nodiscard]] std::size_t depths(std::size_t field) const noexcept {
    const std::size_t first = begin(field);
    const std::size_t group_end = (field / group_fields_ + 1) * group_depth_;
    return std::min({kernels::kFieldTrits, group_end - first, depth_ - first});
  }

  // Calls visit(field, begin, depths) in order.
  template <typename Visit>
  void for_each(const Visit& visit) const {
    std::size_t field = 0;
    for (std::size_t group = 0; group < depth_; group += group_depth_) {
      const std::size_t end = std::min(group + group_depth_, depth_);
      for (std::size_t k = group; k < end; k += kernels::kFieldTrits) {
        visit(field++, k, std::min(kernels::kFieldTrits, end - k));
      }
    }
  }

  // The bits of a bit-plane row's depths [begin, begin + depths) that are not zero, the first the
  // lowest. Precondition: depths <= 15.
  [[nodiscard]] static std::uint16_t bits(const std::uint64_t* row, std::size_t begin,
                                          std::size_t depths) noexcept {
    const std::size_t shift = begin % 64;
    std::uint64_t word = row[bit_plane_word(begin)] >> shift;
    if (shift + depths > 64) word |= row[bit_plane_word(begin + depths - 1)] << (64 - shift);
    return static_cast<std::uint16_t>(word & ((std::uint64_t{1} << depths) - 1));
  }

 private:
  std::size_t depth_{0};
  std::size_t group_depth_{1};
  std::size_t group_fields_{1};
  std::size_t count_{0};
};

// The fields of a layer's chunks (placement::Schedule), which end where scale groups do.
class ChunkFields {
 public:
  ChunkFields() = default;
  // chunk_depth: of the largest chunk; a multiple of 15, or a group.
  ChunkFields(const DepthFields& fields, std::size_t chunk_depth) noexcept
      : group_fields_(fields.group_fields()),
        chunk_fields_(kernels::fields_of(chunk_depth)),
        group_chunks_((group_fields_ + chunk_fields_ - 1) / chunk_fields_),
        fields_(fields.count()),
        count_(fields_ / group_fields_ * group_chunks_ +
               (fields_ % group_fields_ + chunk_fields_ - 1) / chunk_fields_),
        uniform_(!fields.grouped() || group_fields_ % chunk_fields_ == 0) {}

  [[nodiscard]] std::size_t count() const noexcept { return count_; }
  [[nodiscard]] std::size_t largest() const noexcept { return chunk_fields_; }
  // All are of largest() fields but perhaps the last, as kernels want them.
  [[nodiscard]] bool uniform() const noexcept { return uniform_; }
  [[nodiscard]] std::size_t begin(std::size_t c) const noexcept {
    return c / group_chunks_ * group_fields_ + c % group_chunks_ * chunk_fields_;
  }
  [[nodiscard]] std::size_t end(std::size_t c) const noexcept {
    return c + 1 == count_ ? fields_ : begin(c + 1);
  }

 private:
  std::size_t group_fields_{1};
  std::size_t chunk_fields_{1};
  std::size_t group_chunks_{1};
  std::size_t fields_{0};
  std::size_t count_{0};
  bool uniform_{true};
};

}  // namespace tfmbs::device

#pragma GCC visibility pop
