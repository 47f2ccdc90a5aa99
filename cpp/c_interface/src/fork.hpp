// fork() with locks held by other threads: handlers that the layer registers when it is loaded.
#pragma once

namespace tfmbs::c_interface {

// Called once, from the file that holds the locks, so that no linker leaves the handlers out.
// Does nothing where there is no fork().
bool handle_forks();

}  // namespace tfmbs::c_interface
