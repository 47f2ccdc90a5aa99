#include "tfmbs/fabric/task_descriptor.hpp"

#include <bit>
#include <string>

#include "tfmbs/format/pt5.hpp"
#include "tfmbs/format/text.hpp"

namespace tfmbs::fabric {
namespace {

Error refused(const std::string& message) {
  return {ErrorCode::kDescriptor, "task descriptor: " + message};
}

Status check_range(const char* field, std::uint64_t given, std::uint64_t low, std::uint64_t high) {
  if (given >= low && given <= high) {
    return {};
  }
  return refused(std::string(field) + " is " + std::to_string(given) + "; allowed are " +
                 std::to_string(low) + " to " + std::to_string(high));
}

// `words` words of a bank of `bank_words`, from byte `base` on.
Status check_base(const char* field, std::uint64_t base, std::uint64_t words,
                  std::uint64_t bank_words) {
  if (base % kBytesPerWord != 0) {
    return refused(std::string(field) + " " + hex(base) + " is not a multiple of 4");
  }
  const std::uint64_t first = base / kBytesPerWord;
  if (first >= bank_words || words > bank_words - first) {
    return refused(std::to_string(words) + " words from " + field + " " + hex(base) +
                   " on go beyond the bank's " + std::to_string(bank_words) + " words");
  }
  return {};
}

Status check_lane_mask(const TaskDescriptor& task) {
  if (task.lane_mask.empty()) {
    return {};
  }
  bool any = false;
  for (std::size_t w = 0; w < task.lane_mask.size(); ++w) {
    const std::uint64_t bits = task.lane_mask[w];
    if (bits == 0) {
      continue;
    }
    any = true;
    const std::uint64_t last = 64 * w + 63 - static_cast<unsigned>(std::countl_zero(bits));
    if (last >= task.lanes) {
      return refused("lane_mask has a bit for lane " + std::to_string(last) + "; lanes is " +
                     std::to_string(task.lanes));
    }
  }
  if (!any) {
    return refused("lane_mask selects no lane");
  }
  return {};
}

}  // namespace

Status validate(const TaskDescriptor& task, const Geometry& geometry) {
  if (Status s = check_range("depth", task.depth, 1, geometry.bank_depth()); !s) {
    return s;
  }
  if (Status s = check_range("lanes", task.lanes, 1, geometry.lanes()); !s) {
    return s;
  }
  if (task.planes != 1 && task.planes != 6) {
    return refused("planes is " + std::to_string(task.planes) +
                   "; allowed are 1 (trits) and 6 (int8)");
  }
  if (task.tile_mask == 0 || (task.tile_mask & ~geometry.all_tiles()) != 0) {
    return refused("tile_mask is " + hex(task.tile_mask) +
                   "; allowed is any but 0 of the bits of " + hex(geometry.all_tiles()));
  }
  if (Status s = check_lane_mask(task); !s) {
    return s;
  }
  const std::uint64_t weight_words = std::uint64_t{task.depth} * geometry.words_per_depth();
  if (Status s = check_base("weight_base", task.weight_base, weight_words, geometry.bank_a_words());
      !s) {
    return s;
  }
  return check_base("activation_base", task.activation_base,
                    std::uint64_t{task.planes} * pt5_words(task.depth), geometry.bank_b_words());
}

}  // namespace tfmbs::fabric
