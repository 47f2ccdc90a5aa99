// Which device: its name, its engine and its shape, as a value and as text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tfmbs/device/spec_text.hpp"
#include "tfmbs/fabric/config.hpp"
#include "tfmbs/format/error.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::device {

// The drivers that a device can be opened with (driver.hpp).
enum class Engine : std::uint8_t { kClosedForm, kStepped, kLockstep };

[[nodiscard]] std::string_view name_of(Engine engine) noexcept;
// Errors: kInvalidArgument, with the names that are allowed.
Result<Engine> parse_engine(std::string_view text);

inline constexpr std::string_view kDefaultFabricName = "default";

// The process's default device, or one of its own, with what is needed to build it again where it
// is not alive.
struct FabricSpec {
  std::string name{kDefaultFabricName};
  Engine engine{Engine::kClosedForm};
  fabric::FabricConfig config{};

  // "fabric=default", or "fabric=<name>;engine=...;tiles=...": the end of a layer's text.
  [[nodiscard]] std::string to_text() const;
  // The inverse; nothing at all is the default device. Errors: kInvalidArgument (what is
  // malformed), kGeometry.
  static Result<FabricSpec> parse(std::string_view text);
  // Reads the fields at the end of a longer text.
  static Result<FabricSpec> read(FieldReader& fields);

  friend bool operator==(const FabricSpec&, const FabricSpec&) = default;
};

}  // namespace tfmbs::device

#pragma GCC visibility pop
