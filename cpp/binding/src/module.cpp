// The extension module pytfmbs._fabric.
#include <nanobind/nanobind.h>

#include "errors.hpp"
#include "tfmbs/version.hpp"

namespace tfmbs::binding {
void bind_format(nanobind::module_& m);
void bind_kernels(nanobind::module_& m);
void bind_fabric(const nanobind::module_& m);
void bind_bank_map(const nanobind::module_& m);
void bind_layer(nanobind::module_& m);
void bind_estimate(nanobind::module_& m);
}  // namespace tfmbs::binding

NB_MODULE(_fabric, m) {
  m.doc() = "The Ternary Fabric: devices, task descriptors, layers (C++).";
  // Modules, caches and compiled graphs that live to the interpreter's end hold layers and devices.
  nanobind::set_leak_warnings(false);
  m.def("version", &tfmbs::version, "The version of the C++ library.");
  m.def(
      "library", [] { return TFMBS_LIBRARY; }, "The C++ library's file, in this package's folder.");
  tfmbs::binding::register_errors();
  tfmbs::binding::bind_format(m);
  tfmbs::binding::bind_kernels(m);
  tfmbs::binding::bind_fabric(m);
  tfmbs::binding::bind_bank_map(m);
  tfmbs::binding::bind_layer(m);
  tfmbs::binding::bind_estimate(m);
}
