#include "fork.hpp"

namespace tfmbs::c_interface {

bool handle_forks() { return false; }

}  // namespace tfmbs::c_interface
