// Counters as plain dictionaries; the names are those of tfmbs/fabric/counters.hpp.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>

#include "tfmbs/device/fabric.hpp"

namespace tfmbs::binding {

using StringDict = nanobind::typed<nanobind::dict, nanobind::str, nanobind::any>;

StringDict counters_dict(const fabric::Counters& counters, const fabric::FabricConfig& config);
StringDict tile_dict(std::size_t tile, const fabric::TileCounters& counters);
StringDict layer_dict(const device::LayerProfile& layer, const fabric::FabricConfig& config);
StringDict profile_dict(const device::Profile& profile, const fabric::FabricConfig& config);

}  // namespace tfmbs::binding
