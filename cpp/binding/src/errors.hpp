// Errors across the border: the core's Status and Result become exceptions of pytfmbs.FabricError.
#pragma once

#include <exception>
#include <utility>

#include "tfmbs/format/error.hpp"

namespace tfmbs::binding {

class CoreFailure : public std::exception {
 public:
  explicit CoreFailure(Error error) : error_(std::move(error)) {}
  [[nodiscard]] const char* what() const noexcept override { return error_.message.c_str(); }
  [[nodiscard]] const Error& error() const noexcept { return error_; }

 private:
  Error error_;
};

inline void check(Status status) {
  if (!status) throw CoreFailure(std::move(status).error());
}

template <typename T>
T check(Result<T> result) {
  if (!result) throw CoreFailure(std::move(result).error());
  return std::move(result).value();
}

// Maps CoreFailure to the class that python/pytfmbs/errors.py names for its code.
void register_errors();

}  // namespace tfmbs::binding
