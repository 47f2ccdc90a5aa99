// fork() with locks held by other threads: handlers that the layer registers when it is loaded.
#pragma once

namespace tfmbs::runtime {

// Called once, from a file that no linker leaves out of a program with layers.
// Does nothing where there is no fork().
bool handle_forks();

}  // namespace tfmbs::runtime
