#include "tfmbs/version.hpp"

namespace tfmbs {

const char* version() noexcept { return TFMBS_VERSION; }

}  // namespace tfmbs
