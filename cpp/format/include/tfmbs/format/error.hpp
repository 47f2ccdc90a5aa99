// Status and Result: how every layer reports bad input without throwing, printing or aborting.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#pragma GCC visibility push(default)

namespace tfmbs {

// One code per class of the Python exception hierarchy; the binding maps them one to one.
enum class ErrorCode : std::uint8_t {
  kInvalidArgument,  // a value out of its documented range
  kEncoding,         // a byte or word that is no PT-5 code; `offset` names it
  kGeometry,         // a device configuration that cannot be built
  kAddress,          // an address outside the map, misaligned, or across a region's end
  kDescriptor,       // a task descriptor that the device cannot run
  kPlacement,        // no room in Bank A, or an overlap with another layer's given address
  kGone,             // a layer that left its device: moved, renamed or deleted meanwhile
  kClosed,           // a handle that was closed
  kMismatch,         // two drivers in lockstep that do not agree
};

// The code's name as it appears in messages that cross a boundary of plain text: "encoding", ...
[[nodiscard]] const char* error_code_name(ErrorCode code) noexcept;

struct Error {
  ErrorCode code{ErrorCode::kInvalidArgument};
  std::string message;                    // what was given, what is allowed, and where
  std::optional<std::uint64_t> offset{};  // byte offset or address, where one is known
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool ok() const noexcept { return !error_.has_value(); }
  explicit operator bool() const noexcept { return ok(); }
  // Only valid when !ok().
  [[nodiscard]] const Error& error() const& noexcept { return *error_; }
  [[nodiscard]] Error&& error() && noexcept { return std::move(*error_); }

 private:
  std::optional<Error> error_;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}      // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool ok() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return ok(); }
  // value() only when ok(), error() only when !ok().
  [[nodiscard]] T& value() & noexcept { return *std::get_if<0>(&state_); }
  [[nodiscard]] const T& value() const& noexcept { return *std::get_if<0>(&state_); }
  [[nodiscard]] T&& value() && noexcept { return std::move(*std::get_if<0>(&state_)); }
  [[nodiscard]] const Error& error() const& noexcept { return *std::get_if<1>(&state_); }
  [[nodiscard]] Error&& error() && noexcept { return std::move(*std::get_if<1>(&state_)); }

 private:
  std::variant<T, Error> state_;
};

}  // namespace tfmbs

#pragma GCC visibility pop
