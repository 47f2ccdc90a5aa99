// Which kernels there are, which are in use, and forcing them.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "errors.hpp"
#include "tfmbs/kernels/kernels.hpp"

namespace nb = nanobind;

namespace tfmbs::binding {

void bind_kernels(nb::module_& m) {
  m.def(
      "kernel_sets",
      [] {
        std::vector<std::string> names;
        for (const auto& set : kernels::all_kernels()) {
          if (set.supported()) names.emplace_back(set.name);
        }
        return names;
      },
      "Names of the kernel sets that this CPU runs, the portable one first, the fastest last.");
  m.def(
      "active_kernels", [] { return std::string(kernels::active().name); },
      "Name of the kernel set in use: the fastest, or what TFMBS_KERNEL names.");
  m.def(
      "select_kernels", [](const std::string& name) { check(kernels::select(name)); },
      nb::arg("name"), "Forces a kernel set. Raises FabricError for one that this CPU lacks.");
  m.def("check_kernel_selection", [] { check(kernels::select_status()); });
}

}  // namespace tfmbs::binding
