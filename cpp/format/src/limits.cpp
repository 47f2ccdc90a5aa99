#include "tfmbs/format/limits.hpp"

#include <string>

namespace tfmbs {

Status check_layer_size(std::string_view name, std::uint64_t outputs, std::uint64_t depth,
                        ErrorCode code) {
  if (outputs <= kMaxOutputs && depth <= kMaxDepth) return {};
  return Error{code, "layer '" + std::string(name) + "' is of " + std::to_string(outputs) + " x " +
                         std::to_string(depth) + " weights; allowed are at most " +
                         std::to_string(kMaxOutputs) + " x " + std::to_string(kMaxDepth)};
}

}  // namespace tfmbs
