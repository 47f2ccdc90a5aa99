#include "tfmbs/format/group_scales.hpp"

#include <algorithm>
#include <limits>
#include <new>
#include <string>

#include "tfmbs/format/large_memory.hpp"

namespace tfmbs {

void GroupScales::Release::operator()(float* memory) const noexcept {
  large_memory::release(memory, bytes);
}

GroupScales::GroupScales(std::size_t outputs, std::size_t depth, std::size_t group)
    : group_(group), outputs_(outputs), depth_(depth) {
  if (outputs == 0 || depth == 0) return;
  constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max() / sizeof(float);
  if (depth > kMax - group || outputs > kMax - kPanelOutputs ||
      outputs + kPanelOutputs > kMax / view().groups()) {
    throw std::bad_array_new_length();
  }
  const std::size_t size = bytes();
  auto* values = static_cast<float*>(large_memory::allocate(size));
  values_ = {values, Release{size}};
  std::fill_n(values, view().size(), 0.0F);
}

Status GroupScales::set_rows(std::size_t first_output, std::span<const float> rows) {
  const std::size_t groups = view().groups();
  const std::size_t count = groups == 0 ? 0 : rows.size() / groups;
  if (rows.size() != count * groups || first_output > outputs_ || count > outputs_ - first_output) {
    return Error{ErrorCode::kInvalidArgument,
                 "GroupScales::set_rows: " + std::to_string(rows.size()) +
                     " scales given for the outputs from " + std::to_string(first_output) +
                     " on of " + std::to_string(outputs_) + ", " + std::to_string(groups) +
                     " groups each"};
  }
  for (std::size_t r = 0; r < count; ++r) {
    for (std::size_t g = 0; g < groups; ++g) {
      values_[view().index(first_output + r, g)] = rows[r * groups + g];
    }
  }
  return {};
}

std::vector<float> GroupScales::rows(std::size_t first_output, std::size_t count) const {
  const std::size_t groups = view().groups();
  std::vector<float> rows(count * groups);
  for (std::size_t r = 0; r < count; ++r) {
    for (std::size_t g = 0; g < groups; ++g) {
      rows[r * groups + g] = values_[view().index(first_output + r, g)];
    }
  }
  return rows;
}

}  // namespace tfmbs
