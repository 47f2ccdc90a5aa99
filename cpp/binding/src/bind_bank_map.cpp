// The allocator of Bank A without a device, for whoever plans placements before anything runs
// (python/pytfmbs/agent). The rules are placement::BankMap's own.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "errors.hpp"
#include "tfmbs/fabric/config.hpp"
#include "tfmbs/fabric/timing.hpp"
#include "tfmbs/placement/bank_map.hpp"

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace tfmbs::binding {
namespace {

// Layers are numbered as they enter. No weights are known here, so a layer's never change.
class BankPlan {
 public:
  explicit BankPlan(const fabric::FabricConfig& config)
      : geometry_(config.geometry), map_(config.geometry) {}

  std::uint64_t enter(const std::string& name, std::uint64_t outputs, std::uint64_t depth,
                      std::uint64_t tile_mask, std::optional<std::uint64_t> weight_address) {
    if (tile_mask == 0 || (tile_mask & ~geometry_.all_tiles()) != 0) {
      throw CoreFailure({ErrorCode::kInvalidArgument,
                         "layer '" + name + "': tile_mask " + std::to_string(tile_mask) +
                             " is outside 1 to " + std::to_string(geometry_.all_tiles())});
    }
    std::vector<placement::LayerId> evicted;
    check(map_.enter(layers_, name, outputs, depth, tile_mask, weight_address, evicted));
    return layers_++;
  }

  // First word, words, streamed, hit.
  std::tuple<std::uint32_t, std::uint32_t, bool, bool> admit(std::uint64_t layer) {
    placement::BankMap::Admission admission;
    check(map_.admit(checked(layer), kSerial, admission));
    const auto& place = admission.placement;
    return {place.first_word, place.words, place.streamed, admission.hit};
  }

 private:
  static constexpr std::uint64_t kSerial = 1;

  [[nodiscard]] std::uint64_t checked(std::uint64_t layer) const {
    if (layer < layers_) return layer;
    throw CoreFailure(
        {ErrorCode::kInvalidArgument,
         "layer " + std::to_string(layer) + " of " + std::to_string(layers_) + " does not exist"});
  }

  Geometry geometry_;
  placement::BankMap map_;
  std::uint64_t layers_{0};
};

}  // namespace

void bind_bank_map(const nb::module_& m) {
  // Engine cycles of a stage with a pass beside its steps: what a mean over jobs contains.
  m.attr("PASS_OVERHEAD_CYCLES") = fabric::kStartCycles + fabric::kDrainCycles;
  nb::class_<BankPlan>(m, "BankMap",
                       "Who lies where in Bank A, by the device's own rules and without a device.")
      .def(nb::init<const fabric::FabricConfig&>(), "config"_a)
      .def(
          "enter",
          [](BankPlan& self, const std::string& name, std::uint64_t outputs, std::uint64_t depth,
             nb::handle tile_mask, nb::handle weight_addr) {
            std::optional<std::uint64_t> address;
            if (!weight_addr.is_none()) {
              address = unsigned_argument(weight_addr, "weight_addr", ErrorCode::kPlacement);
            }
            return self.enter(
                name, outputs, depth,
                unsigned_argument(tile_mask, "tile_mask", ErrorCode::kInvalidArgument), address);
          },
          "name"_a, "outputs"_a, "depth"_a, "tile_mask"_a, "weight_addr"_a.none() = nb::none(),
          "A layer arrives; returns its number. Raises PlacementError, ArgumentError.")
      .def("admit", &BankPlan::admit, "layer"_a,
           "A forward of the layer: first word, words, streamed, hit. Raises PlacementError where "
           "no window is left.");
}

}  // namespace tfmbs::binding
