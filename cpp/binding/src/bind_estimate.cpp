// What a forward would cost under a placement, for planners in Python.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <limits>
#include <string>
#include <utility>

#include "arguments.hpp"
#include "errors.hpp"
#include "profile_dict.hpp"
#include "tfmbs/device/estimate.hpp"
#include "tfmbs/format/limits.hpp"
#include "tfmbs/linear/activation.hpp"

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace tfmbs::binding {
namespace {

using fabric::FabricConfig;

constexpr std::uint64_t kMax32 = std::numeric_limits<std::uint32_t>::max();

std::uint64_t size_argument(nb::handle value, const char* name, std::uint64_t maximum) {
  return unsigned_argument(value, name, ErrorCode::kInvalidArgument, maximum, 1);
}

std::uint64_t mask_argument(nb::handle value, const FabricConfig& config) {
  return size_argument(value, "tile_mask", config.geometry.all_tiles());
}

std::uint32_t word_argument(nb::handle value, const char* name) {
  return static_cast<std::uint32_t>(unsigned_argument(value, name, ErrorCode::kPlacement, kMax32));
}

StringDict estimate_forward(const FabricConfig& config, nb::handle outputs, nb::handle depth,
                            nb::handle samples, const std::string& activation, nb::handle tile_mask,
                            nb::handle first_word, nb::handle words, bool streamed, bool loaded,
                            double engine_cycles_per_job, nb::handle group_depth) {
  const auto& mode = linear::mode_of(check(linear::parse_activation(activation)));
  const auto estimate = check(device::estimate_forward(
      {.geometry = config.geometry,
       .shape = {size_argument(outputs, "outputs", kMaxOutputs),
                 size_argument(depth, "depth", kMaxDepth), mode.planes,
                 static_cast<std::uint32_t>(unsigned_argument(
                     group_depth, "group_depth", ErrorCode::kInvalidArgument, kMaxDepth))},
       .placement = {mask_argument(tile_mask, config), word_argument(first_word, "first_word"),
                     word_argument(words, "words"), streamed},
       .samples = unsigned_argument(samples, "samples", ErrorCode::kInvalidArgument),
       .loaded = loaded,
       .cycles_per_job = engine_cycles_per_job}));
  StringDict out;
  out["cycles"] = estimate.cycles;
  out["compute_cycles"] = estimate.compute_cycles;
  out["dma_cycles"] = estimate.dma_cycles;
  out["mem_reads"] = estimate.mem_reads;
  out["mem_writes"] = estimate.mem_writes;
  out["passes"] = estimate.passes;
  out["chunks"] = estimate.chunks;
  out["jobs"] = estimate.jobs;
  return out;
}

}  // namespace

void bind_estimate(nb::module_& m) {
  m.def("estimate_forward", &estimate_forward, "config"_a, "outputs"_a, "depth"_a, "samples"_a,
        "activation"_a, "tile_mask"_a, "first_word"_a, "words"_a, "streamed"_a, "loaded"_a,
        "engine_cycles_per_job"_a, "group_depth"_a = 0,
        "Counters of one forward (docs/fabric-layers.md) of a layer that lies at words of "
        "Bank A, in each tile of the mask,\nor streams through them as its window, with every job "
        "at the mean: compute_cycles / jobs of such forwards.\nloaded: a resident layer's weights "
        "are there. Keys: cycles, compute_cycles, dma_cycles, mem_reads, mem_writes; and passes, "
        "chunks,\njobs = passes * chunks * samples. Raises FabricError, PlacementError.");
  m.def(
      "placement_words",
      [](const FabricConfig& config, nb::handle outputs, nb::handle depth, nb::handle tile_mask) {
        return placement::resident_words(
            config.geometry, size_argument(outputs, "outputs", kMaxOutputs),
            size_argument(depth, "depth", kMaxDepth), mask_argument(tile_mask, config));
      },
      "config"_a, "outputs"_a, "depth"_a, "tile_mask"_a,
      "Words of Bank A that a resident layer takes in each tile of its mask; may exceed the bank.");
  m.def(
      "default_tile_mask",
      [](const FabricConfig& config, nb::handle outputs) {
        return placement::default_tile_mask(config.geometry,
                                            size_argument(outputs, "outputs", kMaxOutputs));
      },
      "config"_a, "outputs"_a, "The tiles that a layer gets where none are named.");
  m.def(
      "min_window_words",
      [](const FabricConfig& config) { return placement::min_window_words(config.geometry); },
      "config"_a, "The fewest words of Bank A that a layer can stream through.");
  m.def(
      "wanted_window_words",
      [](const FabricConfig& config) { return placement::wanted_window_words(config.geometry); },
      "config"_a, "The words that a streaming layer evicts for: half a bank.");
}

}  // namespace tfmbs::binding
