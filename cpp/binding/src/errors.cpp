#include "errors.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

namespace nb = nanobind;

namespace tfmbs::binding {

void register_errors() {
  nb::register_exception_translator([](const std::exception_ptr& pointer, void* /*payload*/) {
    try {
      std::rethrow_exception(pointer);
    } catch (const CoreFailure& failure) {
      const Error& error = failure.error();
      const nb::object exception =
          nb::module_::import_("pytfmbs.errors")
              .attr("from_code")(error_code_name(error.code), error.message,
                                 error.offset ? nb::cast(*error.offset) : nb::none());
      PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
    }
  });
}

}  // namespace tfmbs::binding
