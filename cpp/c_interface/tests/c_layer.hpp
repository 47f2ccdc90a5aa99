// A layer for the tests, as a compiled module would hold it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tfmbs/c/layer.h"

namespace tfmbs::testing {

struct CLayer {
  std::string name{"fc"};
  std::int64_t outputs{0};
  std::int64_t depth{0};
  std::int32_t activation{TFMBS_TERNARY};
  std::uint64_t tile_mask{0};
  std::int64_t weight_address{-1};
  std::string fabric;
  std::vector<std::uint8_t> weights;
  std::vector<float> scales{1.0F};
  tfmbs_layer* slot{nullptr};

  CLayer() = default;
  CLayer(const CLayer&) = delete;
  CLayer& operator=(const CLayer&) = delete;
  ~CLayer() { tfmbs_layer_release(&slot); }

  std::int32_t define() {
    return tfmbs_layer_define(&slot, name.c_str(), outputs, depth, activation, tile_mask,
                              weight_address, fabric.c_str(), weights.data(), scales.data(),
                              static_cast<std::int64_t>(scales.size()), TFMBS_F32);
  }
  std::int32_t forward(const std::vector<float>& input, std::vector<float>& output) {
    return tfmbs_layer_forward(&slot, input.data(), TFMBS_F32,
                               static_cast<std::int64_t>(output.size()) / outputs, nullptr, 0,
                               output.data(), TFMBS_F32);
  }
};

}  // namespace tfmbs::testing
