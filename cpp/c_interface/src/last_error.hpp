// The calling thread's last error, and how C++ failures become one.
#pragma once

#include <cstdint>
#include <exception>
#include <new>

#include "tfmbs/c/layer.h"
#include "tfmbs/format/error.hpp"

namespace tfmbs::c_interface {

// Notes an error and gives its status.
std::int32_t fail(const Error& error) noexcept;
[[nodiscard]] inline std::int32_t finish(const Status& status) noexcept {
  return status ? TFMBS_OK : fail(status.error());
}
std::int32_t fail(std::int32_t code, const char* message) noexcept;

// Runs what gives a status and may throw; nothing leaves here but a status.
template <typename Body>
std::int32_t guarded(const Body& body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return fail(TFMBS_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& failure) {
    return fail(TFMBS_INTERNAL, failure.what());
  } catch (...) {
    return fail(TFMBS_INTERNAL, "something was thrown that is no std::exception");
  }
}

}  // namespace tfmbs::c_interface
