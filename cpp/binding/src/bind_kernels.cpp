// The ISA variants: which this CPU supports, which is in use, and forcing one.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "errors.hpp"
#include "tfmbs/kernels/kernels.hpp"

namespace nb = nanobind;

namespace tfmbs::binding {

void bind_kernels(nb::module_& m) {
  m.def(
      "isa_variants",
      [] {
        std::vector<std::string> names;
        for (const auto& set : kernels::all_kernels()) {
          if (set.supported()) names.emplace_back(set.name);
        }
        return names;
      },
      "The ISA variants of the kernels that this CPU supports: \"portable\" first, the fastest "
      "last.");
  m.def(
      "active_kernels", [] { return std::string(kernels::active().name); },
      "The ISA variant in use: the fastest one, or the one that TFMBS_KERNEL names.");
  m.def(
      "select_kernels", [](const std::string& name) { check(kernels::select(name)); },
      nb::arg("name"),
      "Forces an ISA variant, as isa_variants() names it. Raises ArgumentError for any other "
      "name.");
  m.def("check_kernel_selection", [] { check(kernels::select_status()); });
}

}  // namespace tfmbs::binding
