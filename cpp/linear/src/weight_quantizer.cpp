#include "tfmbs/linear/weight_quantizer.hpp"

#include <string>
#include <utility>

namespace tfmbs::linear {
namespace {

constexpr std::pair<WeightQuantizer, std::string_view> kNames[] = {
    {WeightQuantizer::kSign, "sign"},
    {WeightQuantizer::kAbsmean, "absmean"},
    {WeightQuantizer::kTwn, "twn"},
    {WeightQuantizer::kCustom, "custom"},
};

}  // namespace

std::string_view name_of(WeightQuantizer quantizer) noexcept {
  for (const auto& [candidate, name] : kNames) {
    if (candidate == quantizer) return name;
  }
  return {};
}

Result<WeightQuantizer> parse_weight_quantizer(std::string_view text) {
  std::string allowed;
  for (const auto& [quantizer, name] : kNames) {
    if (name == text) return quantizer;
    allowed += (allowed.empty() ? "'" : ", '") + std::string(name) + "'";
  }
  return Error{ErrorCode::kInvalidArgument,
               "weight_quantizer is '" + std::string(text) + "'; allowed are " + allowed};
}

}  // namespace tfmbs::linear
