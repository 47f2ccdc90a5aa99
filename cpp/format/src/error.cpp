#include "tfmbs/format/error.hpp"

namespace tfmbs {

const char* error_code_name(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid_argument";
    case ErrorCode::kEncoding:
      return "encoding";
    case ErrorCode::kGeometry:
      return "geometry";
    case ErrorCode::kAddress:
      return "address";
    case ErrorCode::kDescriptor:
      return "descriptor";
    case ErrorCode::kPlacement:
      return "placement";
    case ErrorCode::kGone:
      return "gone";
    case ErrorCode::kClosed:
      return "closed";
    case ErrorCode::kMismatch:
      return "mismatch";
  }
  return "unknown";
}

}  // namespace tfmbs
