#include "tfmbs/device/fabric_spec.hpp"

#include <utility>

namespace tfmbs::device {
namespace {

constexpr std::pair<Engine, std::string_view> kEngines[] = {
    {Engine::kClosedForm, "closed_form"},
    {Engine::kStepped, "stepped"},
    {Engine::kLockstep, "lockstep"},
};

Status parse_fabric(FieldReader& fields, FabricSpec& out) {
  if (auto s = fields.text("fabric", out.name); !s) return s;
  if (fields.at_end()) {
    if (out.name == kDefaultFabricName) return {};
    return Error{ErrorCode::kInvalidArgument,
                 "specification: fabric '" + out.name + "' comes without its configuration"};
  }
  std::uint64_t tiles = 0;
  std::uint64_t lanes = 0;
  std::uint64_t bank_depth = 0;
  if (auto s = fields.choice("engine", parse_engine, out.engine); !s) return s;
  if (auto s = fields.number("tiles", tiles); !s) return s;
  if (auto s = fields.number("lanes", lanes); !s) return s;
  if (auto s = fields.number("bank_depth", bank_depth); !s) return s;
  if (auto s = fields.number("mac_pj", out.config.energy.mac_pj); !s) return s;
  if (auto s = fields.number("sram_pj", out.config.energy.sram_pj); !s) return s;
  if (auto s = fields.number("dram_pj", out.config.energy.dram_pj); !s) return s;
  if (auto s = fabric::validate(out.config.energy); !s) return s;
  auto geometry = Geometry::make(tiles, lanes, bank_depth);
  if (!geometry) return std::move(geometry).error();
  out.config.geometry = geometry.value();
  return {};
}

}  // namespace

std::string_view name_of(Engine engine) noexcept {
  for (const auto& [candidate, name] : kEngines) {
    if (candidate == engine) return name;
  }
  return {};
}

Result<Engine> parse_engine(std::string_view text) {
  std::string allowed;
  for (const auto& [engine, name] : kEngines) {
    if (name == text) return engine;
    allowed += (allowed.empty() ? "'" : ", '") + std::string(name) + "'";
  }
  return Error{ErrorCode::kInvalidArgument,
               "engine is '" + std::string(text) + "'; allowed are " + allowed};
}

std::string FabricSpec::to_text() const {
  std::string text = "fabric=" + percent_encode(name);
  if (name == kDefaultFabricName) return text;
  const auto field = [&text](std::string_view key, std::string_view value) {
    text.append(";").append(key).append("=").append(value);
  };
  field("engine", name_of(engine));
  field("tiles", std::to_string(config.geometry.tiles()));
  field("lanes", std::to_string(config.geometry.lanes()));
  field("bank_depth", std::to_string(config.geometry.bank_depth()));
  field("mac_pj", number_text(config.energy.mac_pj));
  field("sram_pj", number_text(config.energy.sram_pj));
  field("dram_pj", number_text(config.energy.dram_pj));
  return text;
}

Result<FabricSpec> FabricSpec::read(FieldReader& fields) {
  FabricSpec spec;
  if (auto s = parse_fabric(fields, spec); !s) return std::move(s).error();
  return spec;
}

Result<FabricSpec> FabricSpec::parse(std::string_view text) {
  if (text.empty()) return FabricSpec{};
  FieldReader fields(text);
  auto spec = read(fields);
  if (spec && !fields.at_end()) {
    return Error{ErrorCode::kInvalidArgument, "specification has text after its last field"};
  }
  return spec;
}

}  // namespace tfmbs::device
