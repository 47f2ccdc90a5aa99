// A thread that held a slot's lock at a fork does not exist in the child, which gets new ones: a
// slot is written in one store, so it is whole whenever the fork came. Compiled on POSIX systems
// only; the devices have handlers of their own.
#include <pthread.h>

#include <memory>

#include "fork.hpp"
#include "slots.hpp"

namespace tfmbs::c_interface {
namespace {

void fork_child() { std::construct_at(&slot_locks()); }

}  // namespace

bool handle_forks() {
  slot_locks();  // made before anybody forks
  return pthread_atfork(nullptr, nullptr, &fork_child) == 0;
}

}  // namespace tfmbs::c_interface
