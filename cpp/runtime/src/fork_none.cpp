#include "fork.hpp"

namespace tfmbs::runtime {

bool handle_forks() { return false; }

}  // namespace tfmbs::runtime
