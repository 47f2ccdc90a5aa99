// Counters as plain dictionaries; the names are those of tfmbs/fabric/counters.hpp.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>

#include "tfmbs/runtime/fabric.hpp"

namespace tfmbs::binding {

// A sparsity as everybody shows it: four decimals. 0 of 0 is 0.
double rounded_sparsity(std::uint64_t zeros, std::uint64_t size);
nanobind::dict counters_dict(const fabric::Counters& counters, const fabric::FabricConfig& config);
nanobind::dict tile_dict(std::size_t tile, const fabric::TileCounters& counters,
                         const fabric::FabricConfig& config);
nanobind::dict layer_dict(const runtime::LayerProfile& layer, const fabric::FabricConfig& config);
nanobind::dict profile_dict(const runtime::Profile& profile, const fabric::FabricConfig& config);

}  // namespace tfmbs::binding
