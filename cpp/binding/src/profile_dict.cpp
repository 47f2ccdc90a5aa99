#include "profile_dict.hpp"

#include <nanobind/stl/string.h>

#include <cmath>

namespace nb = nanobind;

namespace tfmbs::binding {
namespace {

// A layer's name may come from a program's text, where it can be any bytes.
nb::str key(std::string_view name) {
  nb::str text = nb::steal<nb::str>(
      PyUnicode_DecodeUTF8(name.data(), static_cast<Py_ssize_t>(name.size()), "replace"));
  if (!text.is_valid()) nb::raise_python_error();
  return text;
}

// Everybody shows a sparsity with four decimals, so that everybody shows the same.
double four_decimals(double sparsity) { return std::round(sparsity * 1e4) / 1e4; }

}  // namespace

StringDict counters_dict(const fabric::Counters& counters, const fabric::FabricConfig& config) {
  StringDict out;
  for (const auto& field : fabric::kCounterFields) out[key(field.name)] = counters.*field.member;
  out["cycles_saved"] = counters.cycles_saved();
  out["utilization"] = counters.utilization(config.geometry);
  out["energy_pj"] = counters.energy_pj(config.energy);
  out["energy_saved_pj"] = counters.energy_saved_pj(config.energy);
  return out;
}

StringDict tile_dict(std::size_t tile, const fabric::TileCounters& counters) {
  StringDict out;
  out["tile"] = tile;
  for (const auto& field : fabric::kTileCounterFields)
    out[key(field.name)] = counters.*field.member;
  return out;
}

StringDict layer_dict(const device::LayerProfile& layer, const fabric::FabricConfig& config) {
  StringDict out = counters_dict(layer.counters, config);
  out["sparsity"] = layer.sparsity ? nb::object(nb::float_(four_decimals(*layer.sparsity)))
                                   : nb::object(nb::none());
  out["tile_mask"] = layer.tile_mask;
  out["weight_addr"] =
      layer.weight_address ? nb::object(nb::int_(*layer.weight_address)) : nb::object(nb::none());
  out["resident"] = layer.resident;
  return out;
}

StringDict profile_dict(const device::Profile& profile, const fabric::FabricConfig& config) {
  StringDict out = counters_dict(profile.total, config);
  nb::list tiles;
  for (std::size_t t = 0; t < profile.tiles.size(); ++t) {
    tiles.append(tile_dict(t, profile.tiles[t]));
  }
  out["tiles"] = tiles;
  nb::dict layers;
  for (const auto& layer : profile.layers) layers[key(layer.name)] = layer_dict(layer, config);
  out["layers"] = layers;
  return out;
}

}  // namespace tfmbs::binding
