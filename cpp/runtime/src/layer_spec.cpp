#include "tfmbs/runtime/layer_spec.hpp"

#include <array>
#include <charconv>
#include <concepts>
#include <span>
#include <utility>

#include "tfmbs/format/limits.hpp"

namespace tfmbs::runtime {
namespace {

template <typename Enum>
using NameTable = std::span<const std::pair<Enum, std::string_view>>;

constexpr std::array<std::pair<WeightQuantizer, std::string_view>, 4> kWeightQuantizers{{
    {WeightQuantizer::kSign, "sign"},
    {WeightQuantizer::kAbsmean, "absmean"},
    {WeightQuantizer::kTwn, "twn"},
    {WeightQuantizer::kCustom, "custom"},
}};
constexpr std::array<std::pair<Activation, std::string_view>, 2> kActivations{{
    {Activation::kTernary, "ternary"},
    {Activation::kInt8, "int8"},
}};
constexpr std::array<std::pair<Engine, std::string_view>, 2> kEngines{{
    {Engine::kClosedForm, "closed_form"},
    {Engine::kStepped, "stepped"},
}};

template <typename Enum>
std::string_view find_name(NameTable<Enum> table, Enum value) noexcept {
  for (const auto& [candidate, name] : table) {
    if (candidate == value) return name;
  }
  return {};
}

template <typename Enum>
Result<Enum> find_value(NameTable<Enum> table, std::string_view what, std::string_view text) {
  std::string allowed;
  for (const auto& [value, name] : table) {
    if (name == text) return value;
    allowed += (allowed.empty() ? "'" : ", '") + std::string(name) + "'";
  }
  return Error{ErrorCode::kInvalidArgument,
               std::string(what) + " is '" + std::string(text) + "'; allowed are " + allowed};
}

constexpr std::string_view kVersion = "tfmbs1";
constexpr std::string_view kHex = "0123456789ABCDEF";

bool is_plain(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

std::string percent_encode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (is_plain(c)) {
      out += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out += '%';
    out += kHex[byte >> 4];
    out += kHex[byte & 0xF];
  }
  return out;
}

Result<std::string> percent_decode(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    unsigned value = 0;
    const char* first = text.data() + i + 1;
    if (i + 2 >= text.size() || std::from_chars(first, first + 2, value, 16).ptr != first + 2) {
      return Error{ErrorCode::kInvalidArgument,
                   "specification: '" + std::string(text) +
                       "' is not percent-encoded; expected two hexadecimal digits after '%'"};
    }
    out += static_cast<char>(value);
    i += 2;
  }
  return out;
}

std::string number_text(double value) {
  std::array<char, 32> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  return {buffer.data(), end.ptr};
}

// Reads "key=value;" fields that must come in a known order.
class FieldReader {
 public:
  explicit FieldReader(std::string_view text) : rest_(text) {}

  Result<std::string_view> next(std::string_view key) {
    const auto end = rest_.find(';');
    const std::string_view field = rest_.substr(0, end);
    if (field.size() <= key.size() || !field.starts_with(key) || field[key.size()] != '=') {
      return Error{ErrorCode::kInvalidArgument, "specification: expected '" + std::string(key) +
                                                    "=...' but found '" + std::string(field) + "'"};
    }
    rest_ = end == std::string_view::npos ? std::string_view{} : rest_.substr(end + 1);
    return field.substr(key.size() + 1);
  }

  template <typename Number>
  Status number(std::string_view key, Number& out) {
    const auto text = next(key);
    if (!text) return text.error();
    return read_number(key, text.value(), out);
  }

  // A number, or the word that stands for none.
  template <typename Number>
  Status optional_number(std::string_view key, std::string_view none, std::optional<Number>& out) {
    const auto text = next(key);
    if (!text) return text.error();
    if (text.value() == none) {
      out.reset();
      return {};
    }
    return read_number(key, text.value(), out.emplace());
  }

  Status text(std::string_view key, std::string& out) {
    const auto field = next(key);
    if (!field) return field.error();
    auto decoded = percent_decode(field.value());
    if (!decoded) return std::move(decoded).error();
    out = std::move(decoded).value();
    return {};
  }

  template <typename Enum>
  Status choice(std::string_view key, Result<Enum> (*parse)(std::string_view), Enum& out) {
    const auto field = next(key);
    if (!field) return field.error();
    auto value = parse(field.value());
    if (!value) return std::move(value).error();
    out = value.value();
    return {};
  }

  [[nodiscard]] bool at_end() const noexcept { return rest_.empty(); }

 private:
  template <typename Number>
  static Status read_number(std::string_view key, std::string_view text, Number& out) {
    const char* end = text.data() + text.size();
    // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): `end` says where it ends
    const auto read = std::from_chars(text.data(), end, out);
    if (read.ec == std::errc{} && read.ptr == end) return {};
    return Error{ErrorCode::kInvalidArgument, "specification: '" + std::string(key) + "' is '" +
                                                  std::string(text) + "', not a number in range"};
  }

  std::string_view rest_;
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

Status check_end(const FieldReader& fields) {
  if (fields.at_end()) return {};
  return Error{ErrorCode::kInvalidArgument, "specification has text after its last field"};
}

}  // namespace

std::string_view name_of(WeightQuantizer quantizer) noexcept {
  return find_name(NameTable<WeightQuantizer>(kWeightQuantizers), quantizer);
}
std::string_view name_of(Activation activation) noexcept {
  return find_name(NameTable<Activation>(kActivations), activation);
}
std::string_view name_of(Engine engine) noexcept {
  return find_name(NameTable<Engine>(kEngines), engine);
}
Result<WeightQuantizer> parse_weight_quantizer(std::string_view text) {
  return find_value(NameTable<WeightQuantizer>(kWeightQuantizers), "weight_quantizer", text);
}
Result<Activation> parse_activation(std::string_view text) {
  return find_value(NameTable<Activation>(kActivations), "activation", text);
}
Result<Engine> parse_engine(std::string_view text) {
  return find_value(NameTable<Engine>(kEngines), "engine", text);
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

Result<FabricSpec> FabricSpec::parse(std::string_view text) {
  FabricSpec spec;
  if (text.empty()) return spec;
  FieldReader fields(text);
  if (auto s = parse_fabric(fields, spec); !s) return std::move(s).error();
  if (auto s = check_end(fields); !s) return std::move(s).error();
  return spec;
}

Status check_limits(const LayerSpec& spec) {
  return check_layer_size(spec.name, spec.outputs, spec.depth, ErrorCode::kInvalidArgument);
}

std::string LayerSpec::to_text() const {
  std::string text(kVersion);
  const auto field = [&text](std::string_view key, std::string_view value) {
    text.append(";").append(key).append("=").append(value);
  };
  field("name", percent_encode(name));
  field("out", std::to_string(outputs));
  field("in", std::to_string(depth));
  field("quantizer", name_of(quantizer));
  field("activation", name_of(activation));
  field("address", weight_address ? std::to_string(*weight_address) : "auto");
  field("tile_mask", std::to_string(tile_mask));
  field("ste_clip", ste_clip ? number_text(*ste_clip) : "none");
  text.append(";").append(fabric.to_text());
  return text;
}

Result<LayerSpec> LayerSpec::parse(std::string_view text) {
  if (!text.starts_with(kVersion) || text.size() <= kVersion.size() ||
      text[kVersion.size()] != ';') {
    return Error{ErrorCode::kInvalidArgument, "layer specification starts with '" +
                                                  std::string(text.substr(0, 16)) +
                                                  "'; expected 'tfmbs1;'"};
  }
  FieldReader fields(text.substr(kVersion.size() + 1));
  LayerSpec spec;
  if (auto s = fields.text("name", spec.name); !s) return std::move(s).error();
  if (auto s = fields.number("out", spec.outputs); !s) return std::move(s).error();
  if (auto s = fields.number("in", spec.depth); !s) return std::move(s).error();
  if (auto s = fields.choice("quantizer", parse_weight_quantizer, spec.quantizer); !s) {
    return std::move(s).error();
  }
  if (auto s = fields.choice("activation", parse_activation, spec.activation); !s) {
    return std::move(s).error();
  }
  if (auto s = fields.optional_number("address", "auto", spec.weight_address); !s) {
    return std::move(s).error();
  }
  if (auto s = fields.number("tile_mask", spec.tile_mask); !s) return std::move(s).error();
  if (auto s = fields.optional_number("ste_clip", "none", spec.ste_clip); !s) {
    return std::move(s).error();
  }
  if (auto s = parse_fabric(fields, spec.fabric); !s) return std::move(s).error();
  if (auto s = check_limits(spec); !s) return std::move(s).error();
  if (spec.ste_clip && !(*spec.ste_clip > 0.0)) {
    return Error{ErrorCode::kInvalidArgument, "layer specification: ste_clip is " +
                                                  number_text(*spec.ste_clip) +
                                                  "; it must be above 0, or none"};
  }
  if (auto s = check_end(fields); !s) return std::move(s).error();
  return spec;
}

}  // namespace tfmbs::runtime
