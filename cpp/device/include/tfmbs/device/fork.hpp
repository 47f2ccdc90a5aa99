// Devices over a fork(): their locks are held over it, so that a child finds every device whole and
// unlocked. Called on the thread that forks, by the handlers of the layer above.
#pragma once

#pragma GCC visibility push(default)

namespace tfmbs::device {

void before_fork();
void after_fork_in_parent();
void after_fork_in_child();

}  // namespace tfmbs::device

#pragma GCC visibility pop
