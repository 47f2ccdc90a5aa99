// A layer's specification, and the part of it that torch ops carry: its identity. Both are text,
// and hold no handle of this process: a program exported elsewhere finds, or makes, the layer and
// the device that they name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tfmbs/device/fabric_spec.hpp"
#include "tfmbs/format/error.hpp"
#include "tfmbs/linear/activation.hpp"
#include "tfmbs/linear/weight_quantizer.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::runtime {

// What a layer is called on its device. It changes no number, so ops carry it as data.
struct LayerIdentity {
  std::string name;
  std::optional<std::uint64_t> weight_address{};  // bytes, in tile 0's Bank A; none: automatic
  std::uint64_t tile_mask{0};                     // 0: the lowest min(tiles, groups) bits
  // None: the layer has no device, and counts nothing.
  std::optional<device::FabricSpec> fabric{device::FabricSpec{}};
  // Tells layers without a device apart, whose names nothing keeps unique.
  std::uint64_t token{0};

  // "tfmbs2;name=fc1;address=auto;tile_mask=0;fabric=default": keys in a fixed order, names
  // percent-encoded. Without a device it ends with "fabric=none;token=1".
  [[nodiscard]] std::string to_text() const;
  // The inverse. Errors: kInvalidArgument (what is malformed), kGeometry.
  static Result<LayerIdentity> parse(std::string_view text);

  friend bool operator==(const LayerIdentity&, const LayerIdentity&) = default;
};

struct LayerSpec {
  LayerIdentity identity{};
  std::uint64_t outputs{0};
  std::uint64_t depth{0};
  linear::WeightQuantizer quantizer{linear::WeightQuantizer::kSign};
  linear::Activation activation{linear::Activation::kTernary};
  std::uint32_t group{0};  // inputs that share a scale of a packed layer; 0: no groups

  // "tfmbs1;name=fc1;out=60;in=784;quantizer=sign;...": the whole, for exporters.
  [[nodiscard]] std::string to_text() const;

  friend bool operator==(const LayerSpec&, const LayerSpec&) = default;
};

// Errors: kInvalidArgument where a layer of that shape is too large for any device.
Status check_limits(const LayerSpec& spec);

}  // namespace tfmbs::runtime

#pragma GCC visibility pop
