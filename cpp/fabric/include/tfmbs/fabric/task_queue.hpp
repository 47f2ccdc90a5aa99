// Asynchronous tasks: a worker thread that runs them one after another, beside the caller.
#pragma once

#include <functional>
#include <memory>

#include "tfmbs/fabric/task_descriptor.hpp"
#include "tfmbs/format/error.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::fabric {

// The state of one submitted task; a handle keeps it alive, nothing else does once it has run.
class TaskTicket;

class TaskQueue {
 public:
  using Runner = std::function<Status(const TaskDescriptor&)>;
  explicit TaskQueue(Runner runner);
  ~TaskQueue();  // runs what is queued, then stops the worker
  TaskQueue(const TaskQueue&) = delete;
  TaskQueue& operator=(const TaskQueue&) = delete;

  // Queues a task; the worker starts with the first one. Thread-safe. Where no worker can be
  // started the task ends with that error.
  std::shared_ptr<TaskTicket> submit(TaskDescriptor task);
  // Blocks until the task has run and gives its status; may be called again, by any thread. What
  // the runner throws comes as a kDescriptor error. Errors of its own: kInvalidArgument (no ticket,
  // or another queue's), and is_done() is then true.
  Status wait(const std::shared_ptr<TaskTicket>& ticket);
  [[nodiscard]] bool is_done(const std::shared_ptr<TaskTicket>& ticket) const;
  // Blocks until what has been submitted so far has run.
  void drain();

  // Around fork(): before() takes the queue's lock once no task runs (queued ones stay queued),
  // after_in_parent() and after_in_child() release it; the child starts a worker of its own.
  void before_fork();
  void after_fork_in_parent();
  void after_fork_in_child();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tfmbs::fabric

#pragma GCC visibility pop
