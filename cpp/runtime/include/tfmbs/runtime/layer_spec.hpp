// A layer's identity as text. Torch ops carry it, so it holds no handle of this process: a program
// exported elsewhere finds, or makes, the layer and the device that it names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tfmbs/fabric/config.hpp"
#include "tfmbs/format/error.hpp"

namespace tfmbs::runtime {

enum class WeightQuantizer : std::uint8_t { kSign, kAbsmean, kTwn, kCustom };
enum class Activation : std::uint8_t { kTernary, kInt8 };
enum class Engine : std::uint8_t { kClosedForm, kStepped };

[[nodiscard]] std::string_view name_of(WeightQuantizer quantizer) noexcept;
[[nodiscard]] std::string_view name_of(Activation activation) noexcept;
[[nodiscard]] std::string_view name_of(Engine engine) noexcept;
// Errors: kInvalidArgument, with the names that are allowed.
Result<WeightQuantizer> parse_weight_quantizer(std::string_view text);
Result<Activation> parse_activation(std::string_view text);
Result<Engine> parse_engine(std::string_view text);

inline constexpr std::string_view kDefaultFabricName = "default";

// Which device a layer runs on: the process's default one, or one of its own, with what is needed
// to build it again where it is not alive.
struct FabricSpec {
  std::string name{kDefaultFabricName};
  Engine engine{Engine::kClosedForm};
  fabric::FabricConfig config{};

  // "fabric=default", or "fabric=<name>;engine=...;tiles=...": the end of a layer's text.
  [[nodiscard]] std::string to_text() const;
  // The inverse; nothing at all is the default device. Errors: kInvalidArgument (what is
  // malformed), kGeometry.
  static Result<FabricSpec> parse(std::string_view text);

  friend bool operator==(const FabricSpec&, const FabricSpec&) = default;
};

struct LayerSpec {
  std::string name;
  std::uint64_t outputs{0};
  std::uint64_t depth{0};
  WeightQuantizer quantizer{WeightQuantizer::kSign};
  Activation activation{Activation::kTernary};
  std::optional<std::uint64_t> weight_address{};  // bytes, in tile 0's Bank A; none: automatic
  std::uint64_t tile_mask{0};                     // 0: the lowest min(tiles, groups) bits
  std::optional<double> ste_clip{};  // window of the input's gradient; none: everything passes
  FabricSpec fabric{};

  // "tfmbs1;name=fc1;out=60;in=784;quantizer=sign;...": keys in a fixed order, names
  // percent-encoded.
  [[nodiscard]] std::string to_text() const;
  // The inverse. Errors: kInvalidArgument (what is malformed), kGeometry.
  static Result<LayerSpec> parse(std::string_view text);

  friend bool operator==(const LayerSpec&, const LayerSpec&) = default;
};

// Errors: kInvalidArgument where a layer of that shape is too large for any device.
Status check_limits(const LayerSpec& spec);

}  // namespace tfmbs::runtime
