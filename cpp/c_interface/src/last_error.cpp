#include "last_error.hpp"

#include <string>

namespace tfmbs::c_interface {
namespace {

struct LastError {
  std::int32_t code{TFMBS_OK};
  std::string text;
  const char* fallback{nullptr};  // instead of text, where there was no memory for it
};

LastError& last_error() noexcept {
  thread_local LastError error;
  return error;
}

constexpr std::int32_t status_of(ErrorCode code) noexcept {
  if (code == ErrorCode::kMismatch) return TFMBS_MISMATCH;
  return static_cast<std::int32_t>(code) + 1;
}
static_assert(status_of(ErrorCode::kInvalidArgument) == TFMBS_INVALID_ARGUMENT &&
              status_of(ErrorCode::kEncoding) == TFMBS_ENCODING &&
              status_of(ErrorCode::kGeometry) == TFMBS_GEOMETRY &&
              status_of(ErrorCode::kAddress) == TFMBS_ADDRESS &&
              status_of(ErrorCode::kDescriptor) == TFMBS_DESCRIPTOR &&
              status_of(ErrorCode::kPlacement) == TFMBS_PLACEMENT &&
              status_of(ErrorCode::kGone) == TFMBS_GONE &&
              status_of(ErrorCode::kClosed) == TFMBS_CLOSED);

}  // namespace

std::int32_t fail(const Error& error) noexcept {
  return fail(status_of(error.code), error.message.c_str());
}

std::int32_t fail(std::int32_t code, const char* message) noexcept {
  LastError& error = last_error();
  error.code = code;
  error.fallback = nullptr;
  try {
    error.text = message;
  } catch (...) {
    error.fallback = "an error for whose text there was no memory";
  }
  return code;
}

}  // namespace tfmbs::c_interface

extern "C" {

const char* tfmbs_last_error(int32_t* code) {
  const auto& error = tfmbs::c_interface::last_error();
  if (code != nullptr) *code = error.code;
  return error.fallback != nullptr ? error.fallback : error.text.c_str();
}

void tfmbs_clear_error(void) {
  auto& error = tfmbs::c_interface::last_error();
  error.code = TFMBS_OK;
  error.text.clear();
  error.fallback = nullptr;
}

}  // extern "C"
