#include "tfmbs/runtime/layer_spec.hpp"

#include <utility>

#include "tfmbs/device/spec_text.hpp"
#include "tfmbs/format/limits.hpp"

namespace tfmbs::runtime {
namespace {

constexpr std::string_view kIdentityVersion = "tfmbs2;";
constexpr std::string_view kSpecVersion = "tfmbs1;";
constexpr std::string_view kNoFabric = "fabric=none;token=";

void add_field(std::string& text, std::string_view key, std::string_view value) {
  text.append(key).append("=").append(value).append(";");
}

// Address, tile mask and device: how both texts end.
void add_place(std::string& text, const LayerIdentity& identity) {
  add_field(text, "address",
            identity.weight_address ? std::to_string(*identity.weight_address) : "auto");
  add_field(text, "tile_mask", std::to_string(identity.tile_mask));
  text += identity.fabric ? identity.fabric->to_text()
                          : std::string(kNoFabric) + std::to_string(identity.token);
}

}  // namespace

std::string LayerIdentity::to_text() const {
  std::string text(kIdentityVersion);
  add_field(text, "name", device::percent_encode(name));
  add_place(text, *this);
  return text;
}

Result<LayerIdentity> LayerIdentity::parse(std::string_view text) {
  if (!text.starts_with(kIdentityVersion)) {
    return Error{ErrorCode::kInvalidArgument, "a layer's identity starts with '" +
                                                  std::string(text.substr(0, 16)) +
                                                  "'; expected 'tfmbs2;'"};
  }
  device::FieldReader fields(text.substr(kIdentityVersion.size()));
  LayerIdentity identity;
  if (auto s = fields.text("name", identity.name); !s) return std::move(s).error();
  if (auto s = fields.optional_number("address", "auto", identity.weight_address); !s) {
    return std::move(s).error();
  }
  if (auto s = fields.number("tile_mask", identity.tile_mask); !s) return std::move(s).error();
  if (text.find(kNoFabric) != std::string_view::npos) {
    identity.fabric.reset();
    if (auto s = fields.next("fabric"); !s) return std::move(s).error();
    if (auto s = fields.number("token", identity.token); !s) return std::move(s).error();
  } else {
    auto fabric = device::FabricSpec::read(fields);
    if (!fabric) return std::move(fabric).error();
    identity.fabric = std::move(fabric).value();
  }
  if (!fields.at_end()) {
    return Error{ErrorCode::kInvalidArgument, "a layer's identity has text after its last field"};
  }
  return identity;
}

std::string LayerSpec::to_text() const {
  std::string text(kSpecVersion);
  add_field(text, "name", device::percent_encode(identity.name));
  add_field(text, "out", std::to_string(outputs));
  add_field(text, "in", std::to_string(depth));
  add_field(text, "quantizer", name_of(quantizer));
  add_field(text, "activation", name_of(activation));
  add_place(text, identity);
  return text;
}

Status check_limits(const LayerSpec& spec) {
  return check_layer_size(spec.identity.name, spec.outputs, spec.depth,
                          ErrorCode::kInvalidArgument);
}

}  // namespace tfmbs::runtime
