// FabricConfig, TFD, Handle and Fabric: the device for Python. The interpreter lock is released
// while the device works.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <limits>
#include <memory>
#include <span>
#include <tuple>

#include "arguments.hpp"
#include "errors.hpp"
#include "fabric_handle.hpp"
#include "profile_dict.hpp"
#include "tfmbs/device/fabric.hpp"

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace tfmbs::binding {
namespace {

using device::Fabric;
using fabric::FabricConfig;
using fabric::TaskDescriptor;

// What is pickled.
using ConfigState = std::tuple<std::uint64_t, std::uint64_t, std::uint64_t, double, double, double>;
using FabricState = std::tuple<std::optional<FabricConfig>, std::optional<std::string>>;
using TaskState = std::tuple<nb::object, nb::object, nb::object, nb::object, nb::object, nb::object,
                             nb::object, bool, bool>;

constexpr std::uint64_t kMax32 = std::numeric_limits<std::uint32_t>::max();

FabricConfig checked_config(std::uint64_t tiles, std::uint64_t lanes, std::uint64_t bank_depth,
                            double mac_pj, double sram_pj, double dram_pj) {
  const fabric::EnergyTable energy{mac_pj, sram_pj, dram_pj};
  check(fabric::validate(energy));
  return {check(Geometry::make(tiles, lanes, bank_depth)), energy};
}

FabricConfig make_config(nb::handle tiles, nb::handle lanes, nb::handle bank_depth, double mac_pj,
                         double sram_pj, double dram_pj) {
  const auto number = [](nb::handle value, const char* name, std::uint64_t least,
                         std::uint64_t most) {
    return unsigned_argument(value, name, ErrorCode::kGeometry, most, least);
  };
  return checked_config(
      number(tiles, "tiles", 1, Geometry::kMaxTiles),
      number(lanes, "lanes", 1, Geometry::kMaxLanes),
      number(bank_depth, "bank_depth", Geometry::kMinBankDepth, Geometry::kMaxBankDepth), mac_pj,
      sram_pj, dram_pj);
}

std::string config_repr(const FabricConfig& config) {
  return "FabricConfig(tiles=" + std::to_string(config.geometry.tiles()) +
         ", lanes=" + std::to_string(config.geometry.lanes()) +
         ", bank_depth=" + std::to_string(config.geometry.bank_depth()) + ")";
}

// A tile of a shape, for its address map.
std::uint32_t config_tile(nb::handle value, const FabricConfig& config) {
  return static_cast<std::uint32_t>(
      unsigned_argument(value, "tile", ErrorCode::kAddress, config.geometry.tiles() - 1));
}

TaskDescriptor make_task(nb::handle depth, nb::handle lanes, nb::handle weight_base,
                         nb::handle activation_base, nb::handle lane_mask, nb::handle tile_mask,
                         nb::handle planes, bool accumulate, bool zero_skip) {
  const auto number = [](nb::handle value, const char* name, std::uint64_t maximum) {
    return unsigned_argument(value, name, ErrorCode::kDescriptor, maximum);
  };
  return {.weight_base = number(weight_base, "weight_base", kMax32),
          .activation_base = number(activation_base, "activation_base", kMax32),
          .depth = static_cast<std::uint32_t>(number(depth, "depth", kMax32)),
          .lanes = static_cast<std::uint32_t>(number(lanes, "lanes", kMax32)),
          .lane_mask = lane_mask_argument(lane_mask),
          .tile_mask = number(tile_mask, "tile_mask", std::numeric_limits<std::uint64_t>::max()),
          .planes = static_cast<std::uint32_t>(number(planes, "planes", kMax32)),
          .accumulate = accumulate,
          .zero_skip = zero_skip};
}

auto fields_of(const TaskDescriptor& task) {
  return std::tie(task.depth, task.lanes, task.weight_base, task.activation_base, task.lane_mask,
                  task.tile_mask, task.planes, task.accumulate, task.zero_skip);
}

// As it was given: an integer, or None for all of the task's lanes.
nb::object lane_mask_of(const TaskDescriptor& task) {
  if (task.lane_mask.empty()) return nb::none();
  nb::object mask = nb::int_(0);
  for (std::size_t i = task.lane_mask.size(); i-- > 0;) {
    mask = (mask << nb::int_(64)) | nb::int_(task.lane_mask[i]);
  }
  return mask;
}

std::string task_repr(const TaskDescriptor& task) {
  return "TFD(depth=" + std::to_string(task.depth) + ", lanes=" + std::to_string(task.lanes) +
         ", weight_base=" + std::to_string(task.weight_base) +
         ", activation_base=" + std::to_string(task.activation_base) +
         ", lane_mask=" + nb::cast<std::string>(nb::repr(lane_mask_of(task))) +
         ", tile_mask=" + std::to_string(task.tile_mask) +
         ", planes=" + std::to_string(task.planes) +
         ", accumulate=" + (task.accumulate ? "True" : "False") +
         ", zero_skip=" + (task.zero_skip ? "True" : "False") + ")";
}

// A submitted task, with the device that runs it.
struct TaskHandle {
  SharedFabric fabric;
  std::shared_ptr<fabric::TaskTicket> ticket;
};

FabricHandle make_fabric(std::optional<FabricConfig> config,
                         const std::optional<std::string>& engine) {
  if (!config && !engine) return {Fabric::default_fabric()};
  const nb::gil_scoped_release release;  // a large device takes a while
  const auto kind = engine ? check(device::parse_engine(*engine)) : device::Engine::kClosedForm;
  return {Fabric::open(kind, config.value_or(FabricConfig{}))};
}

void bind_config(const nb::module_& m) {
  const FabricConfig defaults;
  nb::class_<FabricConfig>(
      m, "FabricConfig",
      "Shape of a device and its energy table (docs/fabric.md).\n\n"
      "tiles: 1 to 64. lanes: outputs a tile computes at once. bank_depth: depths "
      "of a bank, at least 15.\nmac_pj, sram_pj, dram_pj: picojoules a ternary "
      "multiply-accumulate, a bank word, a DRAM word.\n"
      "Raises GeometryError for a shape that cannot be built.")
      .def(
          "__init__",
          [](FabricConfig* self, nb::handle tiles, nb::handle lanes, nb::handle bank_depth,
             double mac_pj, double sram_pj, double dram_pj) {
            new (self)
                FabricConfig(make_config(tiles, lanes, bank_depth, mac_pj, sram_pj, dram_pj));
          },
          "tiles"_a = defaults.geometry.tiles(), "lanes"_a = defaults.geometry.lanes(),
          "bank_depth"_a = defaults.geometry.bank_depth(), nb::kw_only(),
          "mac_pj"_a = defaults.energy.mac_pj, "sram_pj"_a = defaults.energy.sram_pj,
          "dram_pj"_a = defaults.energy.dram_pj)
      .def_prop_ro("tiles", [](const FabricConfig& c) { return c.geometry.tiles(); })
      .def_prop_ro("lanes", [](const FabricConfig& c) { return c.geometry.lanes(); })
      .def_prop_ro("bank_depth", [](const FabricConfig& c) { return c.geometry.bank_depth(); })
      .def_prop_ro("words_per_depth",
                   [](const FabricConfig& c) { return c.geometry.words_per_depth(); })
      .def_prop_ro("mac_pj", [](const FabricConfig& c) { return c.energy.mac_pj; })
      .def_prop_ro("sram_pj", [](const FabricConfig& c) { return c.energy.sram_pj; })
      .def_prop_ro("dram_pj", [](const FabricConfig& c) { return c.energy.dram_pj; })
      .def(
          "results_base",
          [](const FabricConfig& c, nb::handle tile) {
            return c.geometry.results_base(config_tile(tile, c));
          },
          "tile"_a)
      .def(
          "bank_a_base",
          [](const FabricConfig& c, nb::handle tile) {
            return c.geometry.bank_a_base(config_tile(tile, c));
          },
          "tile"_a)
      .def(
          "bank_b_base",
          [](const FabricConfig& c, nb::handle tile) {
            return c.geometry.bank_b_base(config_tile(tile, c));
          },
          "tile"_a)
      .def_prop_ro("broadcast_base",
                   [](const FabricConfig& c) { return c.geometry.broadcast_base(); })
      .def(
          "__eq__",
          [](const FabricConfig& a, nb::handle b) {
            FabricConfig other;
            return nb::try_cast(b, other) && a == other;
          },
          nb::arg().none())
      .def("__hash__",
           [](const FabricConfig& c) {
             return nb::hash(
                 nb::make_tuple(c.geometry.tiles(), c.geometry.lanes(), c.geometry.bank_depth()));
           })
      .def("__repr__", &config_repr)
      .def("__getstate__",
           [](const FabricConfig& c) {
             return ConfigState(c.geometry.tiles(), c.geometry.lanes(), c.geometry.bank_depth(),
                                c.energy.mac_pj, c.energy.sram_pj, c.energy.dram_pj);
           })
      .def("__setstate__", [](FabricConfig* self, const ConfigState& state) {
        new (self) FabricConfig(std::apply(checked_config, state));
      });
}

void bind_task(const nb::module_& m) {
  nb::class_<TaskDescriptor>(
      m, "TFD",
      "A task descriptor: one pass of the engine (docs/fabric.md, \"Engine\").\n\n"
      "depth: depths to run. lanes: lanes that run. weight_base, activation_base: byte offsets "
      "into Bank A and Bank B.\nlane_mask: bit l for lane l (default: all of lanes). tile_mask: "
      "bit t "
      "for tile t. planes: 1 (trits) or 6 (int8).\naccumulate: add to the result registers. "
      "zero_skip: "
      "skip and gate zeros.\nValues are checked against a device when it runs: DescriptorError.")
      .def(
          "__init__",
          [](TaskDescriptor* self, nb::handle depth, nb::handle lanes, nb::handle weight_base,
             nb::handle activation_base, nb::handle lane_mask, nb::handle tile_mask,
             nb::handle planes, bool accumulate, bool zero_skip) {
            new (self)
                TaskDescriptor(make_task(depth, lanes, weight_base, activation_base, lane_mask,
                                         tile_mask, planes, accumulate, zero_skip));
          },
          "depth"_a, "lanes"_a = Geometry{}.lanes(), nb::kw_only(), "weight_base"_a = 0,
          "activation_base"_a = 0, "lane_mask"_a = nb::none(), "tile_mask"_a = 1, "planes"_a = 1,
          "accumulate"_a = false, "zero_skip"_a = true)
      .def_ro("depth", &TaskDescriptor::depth)
      .def_ro("lanes", &TaskDescriptor::lanes)
      .def_ro("weight_base", &TaskDescriptor::weight_base)
      .def_ro("activation_base", &TaskDescriptor::activation_base)
      .def_prop_ro("lane_mask", &lane_mask_of, nb::sig("def lane_mask(self) -> int | None"))
      .def_ro("tile_mask", &TaskDescriptor::tile_mask)
      .def_ro("planes", &TaskDescriptor::planes)
      .def_ro("accumulate", &TaskDescriptor::accumulate)
      .def_ro("zero_skip", &TaskDescriptor::zero_skip)
      .def(
          "__eq__",
          [](const TaskDescriptor& a, nb::handle b) {
            TaskDescriptor other;
            return nb::try_cast(b, other) && fields_of(a) == fields_of(other);
          },
          nb::arg().none())
      .def("__hash__",
           [](const TaskDescriptor& task) { return nb::hash(nb::str(task_repr(task).c_str())); })
      .def("__repr__", &task_repr)
      .def("__getstate__",
           [](const TaskDescriptor& task) -> nb::typed<nb::tuple, nb::any, nb::ellipsis> {
             return nb::make_tuple(task.depth, task.lanes, task.weight_base, task.activation_base,
                                   lane_mask_of(task), task.tile_mask, task.planes, task.accumulate,
                                   task.zero_skip);
           })
      .def("__setstate__", [](TaskDescriptor* self, const TaskState& state) {
        new (self) TaskDescriptor(std::apply(make_task, state));
      });
  nb::class_<TaskHandle>(m, "Handle", "A task submitted with Fabric.submit.")
      .def_prop_ro("done", [](const TaskHandle& handle) {
        const nb::gil_scoped_release release;
        return handle.fabric->is_done(handle.ticket);
      });
}

void require_open(const Fabric& fabric) {
  if (fabric.closed()) {
    throw CoreFailure({ErrorCode::kClosed, "fabric '" + fabric.spec().name + "' is closed"});
  }
}

void wait_for(const TaskHandle& handle, const SharedFabric& fabric) {
  if (handle.fabric != fabric) {
    throw CoreFailure(
        {ErrorCode::kInvalidArgument, "the handle is of fabric '" + handle.fabric->spec().name +
                                          "', not of fabric '" + fabric->spec().name + "'"});
  }
}

}  // namespace

void bind_fabric(const nb::module_& m) {
  bind_config(m);
  bind_task(m);
  using Release = nb::gil_scoped_release;
  nb::class_<FabricHandle>(
      m, "Fabric", nb::is_weak_referenceable(),
      "A handle to a Ternary Fabric.\n\n"
      "Fabric() is the process's default device, the one that layers use unless given another. "
      "Fabric(config) and\nFabric(engine=\"stepped\") are devices of their own, with close() and "
      "`with`. engine: \"closed_form\" (results from the CPU kernels, exact telemetry in closed "
      "form), \"stepped\"\n(every word and cycle is stepped; the reference), or \"lockstep\" "
      "(both; "
      "a call after which they differ in a\nresult, counter or word raises MismatchError).")
      .def(
          "__init__",
          [](FabricHandle* self, std::optional<FabricConfig> config,
             const std::optional<std::string>& engine) {
            new (self) FabricHandle(make_fabric(config, engine));
          },
          "config"_a = nb::none(), nb::kw_only(), "engine"_a = nb::none())
      .def_prop_ro("name", [](const FabricHandle& h) { return h.fabric->spec().name; })
      .def_prop_ro(
          "spec", [](const FabricHandle& h) { return h.fabric->spec().to_text(); },
          "The device as text, for programs that run elsewhere: there the living device of that "
          "name and shape, or a new one.")
      .def_prop_ro("config", [](const FabricHandle& h) { return h.fabric->config(); })
      .def_prop_ro(
          "engine",
          [](const FabricHandle& h) { return std::string(name_of(h.fabric->spec().engine)); })
      .def_prop_ro("is_default", [](const FabricHandle& h) { return h.fabric->is_default(); })
      .def_prop_ro("closed",
                   [](const FabricHandle& h) {
                     const Release release;
                     return h.fabric->closed();
                   })
      .def_prop_rw(
          "telemetry",
          [](const FabricHandle& h) {
            const Release release;
            require_open(*h.fabric);
            return h.fabric->telemetry();
          },
          [](const FabricHandle& h, bool on) {
            const Release release;
            require_open(*h.fabric);
            h.fabric->set_telemetry(on);
          },
          "Whether the device counts; on by default. Results and residency are the same either "
          "way.")
      .def(
          "close",
          [](const FabricHandle& h) {
            const Release release;
            check(h.fabric->close());
          },
          "Ends the device. Raises ClosedError for the default one; closing twice is fine.")
      .def("__enter__", [](nb::handle self) { return nb::borrow(self); })
      .def(
          "__exit__",
          [](const FabricHandle& h, nb::handle, nb::handle, nb::handle) {
            if (!h.fabric->is_default()) {
              const Release release;
              check(h.fabric->close());
            }
          },
          nb::arg().none(), nb::arg().none(), nb::arg().none())
      .def(
          "load",
          [](const FabricHandle& h, nb::handle address, nb::handle data) {
            const auto where = unsigned_argument(address, "address", ErrorCode::kAddress);
            const auto words = words_argument(data);
            const Release release;
            check(h.fabric->load(where, words));
          },
          "address"_a, "data"_a,
          "Writes words (little-endian, a multiple of 4 bytes) by DMA. Raises AddressError, "
          "EncodingError; nothing is written then.")
      .def(
          "read",
          [](const FabricHandle& h, nb::handle address, nb::handle size) {
            const auto where = unsigned_argument(address, "address", ErrorCode::kAddress);
            const auto bytes = unsigned_argument(size, "n", ErrorCode::kAddress, kMax32);
            if (bytes % 4 != 0) {
              throw CoreFailure({ErrorCode::kAddress, "n is " + std::to_string(bytes) +
                                                          " bytes; allowed are multiples of 4"});
            }
            // Checked before memory is taken: n may be absurd.
            if (auto place = h.fabric->config().geometry.locate(where, bytes); !place) {
              throw CoreFailure(std::move(place).error());
            }
            std::vector<std::uint32_t> words(bytes / 4);
            {
              const Release release;
              check(h.fabric->read(where, words));
            }
            std::string out;
            out.reserve(bytes);
            for (const std::uint32_t word : words) {
              for (unsigned b = 0; b < 4; ++b) out += static_cast<char>(word >> (8 * b) & 0xFF);
            }
            return nb::bytes(out.data(), out.size());
          },
          "address"_a, "n"_a,
          "n bytes (a multiple of 4) from an address, little-endian. Costs no cycle. Raises "
          "AddressError.")
      .def(
          "run",
          [](const FabricHandle& h, const TaskDescriptor& task) {
            const Release release;
            check(h.fabric->run(task));
          },
          "tfd"_a, "Runs one task. Raises DescriptorError; nothing has run then.")
      .def(
          "run_batch",
          [](const FabricHandle& h, const std::vector<TaskDescriptor>& tasks) {
            const Release release;
            check(h.fabric->run_batch(tasks));
          },
          "tfds"_a, "Runs tasks in order. All are checked before the first runs.")
      .def(
          "submit",
          [](const FabricHandle& h, const TaskDescriptor& task) {
            const Release release;
            return TaskHandle{h.fabric, check(h.fabric->submit(task))};
          },
          "tfd"_a, "Starts a task beside the caller; it is checked at once.")
      .def(
          "wait",
          [](const FabricHandle& h, const TaskHandle& handle) {
            wait_for(handle, h.fabric);
            const Release release;
            check(h.fabric->wait(handle.ticket));
          },
          "handle"_a, "Blocks until the task has run, and raises what it raised.")
      .def(
          "is_done",
          [](const FabricHandle& h, const TaskHandle& handle) {
            wait_for(handle, h.fabric);
            const Release release;
            return h.fabric->is_done(handle.ticket);
          },
          "handle"_a)
      .def(
          "results",
          [](const FabricHandle& h, nb::handle tile) {
            const auto number = tile_argument(tile);
            std::vector<std::int32_t> values;
            {
              const Release release;
              values = check(h.fabric->results(number));
            }
            return values;
          },
          "tile"_a = -1,
          "Result registers (32-bit integers) of a tile, or of all, tile after tile.")
      .def(
          "profile",
          [](const FabricHandle& h) {
            device::Profile profile;
            {
              const Release release;
              profile = check(h.fabric->profile());
            }
            return counters_dict(profile.total, h.fabric->config());
          },
          "The device's counters (docs/fabric.md, \"Counters\") as a dictionary.")
      .def(
          "profile_detailed",
          [](const FabricHandle& h) {
            device::Profile profile;
            {
              const Release release;
              profile = check(h.fabric->profile());
            }
            return profile_dict(profile, h.fabric->config());
          },
          "profile(), and `tiles` (a list) and `layers` (by name).")
      .def(
          "profile_tile",
          [](const FabricHandle& h, nb::handle tile) {
            const auto number = tile_argument(tile);
            fabric::TileCounters counters;
            {
              const Release release;
              counters = check(h.fabric->profile_tile(number));
            }
            return tile_dict(static_cast<std::size_t>(number), counters);
          },
          "tile"_a)
      .def(
          "reset_counters",
          [](const FabricHandle& h) {
            const Release release;
            check(h.fabric->reset_counters());
          },
          "Sets every counter to zero; residency stays.")
      .def("__eq__",
           [](const FabricHandle& h, nb::handle other) {
             FabricHandle rhs;
             return nb::try_cast(other, rhs) && h.fabric == rhs.fabric;
           })
      .def("__hash__",
           [](const FabricHandle& h) { return std::hash<const Fabric*>{}(h.fabric.get()); })
      .def("__repr__",
           [](const FabricHandle& h) {
             return "Fabric('" + h.fabric->spec().name + "', engine='" +
                    std::string(name_of(h.fabric->spec().engine)) + "', " +
                    config_repr(h.fabric->config()) + ")";
           })
      // A device is shared, never copied.
      .def("__copy__", [](nb::handle self) { return nb::borrow(self); })
      .def("__deepcopy__", [](nb::handle self, nb::handle) { return nb::borrow(self); })
      // Pickled by configuration: unpickling makes a new device, or gives the default one.
      .def("__getstate__",
           [](const FabricHandle& h) {
             if (h.fabric->is_default()) return FabricState();
             return FabricState(h.fabric->config(), std::string(name_of(h.fabric->spec().engine)));
           })
      .def("__setstate__", [](FabricHandle* self, const FabricState& state) {
        new (self) FabricHandle(std::apply(make_fabric, state));
      });
}

}  // namespace tfmbs::binding
