// Errors of the library as torch ops raise them.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

#include "tfmbs/format/error.hpp"

namespace tfmbs::torch_ops {

// torch knows only RuntimeError here; Python reads the code in brackets and raises the class of
// pytfmbs.FabricError that it stands for (python/pytfmbs/errors.py).
[[noreturn]] inline void raise(const Error& error) {
  throw std::runtime_error(std::string("[tfmbs:") + error_code_name(error.code) + "] " +
                           error.message);
}

// torch's own macro would begin the message with a path of the machine that compiled it.
template <typename... Parts>
void check(bool holds, const Parts&... parts) {
  if (holds) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

inline void require(const Status& status) {
  if (!status) raise(status.error());
}
template <typename T>
T require(Result<T> result) {
  if (!result) raise(result.error());
  return std::move(result).value();
}

// Of operands that nn.Linear refuses too: Python then raises nn.Linear's own error, in its type and
// words.
inline void require_operands(const Status& status) {
  if (!status) throw std::runtime_error("tfmbs: " + status.error().message);
}
template <typename T>
T require_operands(Result<T> result) {
  if (!result) throw std::runtime_error("tfmbs: " + result.error().message);
  return std::move(result).value();
}

}  // namespace tfmbs::torch_ops
