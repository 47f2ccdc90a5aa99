#include "tfmbs/fabric/task_queue.hpp"

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

namespace tfmbs::fabric {

// Guarded by the mutex of the queue that made it, but for `owner`, which never changes.
class TaskTicket {
 public:
  TaskTicket(const void* queue, TaskDescriptor descriptor)
      : owner(queue), task(std::move(descriptor)) {}

  const void* const owner;
  TaskDescriptor task;  // moved out when it runs
  Status status;
  bool done{false};
};

namespace {

// The thread, and what it and its callers meet at. In one piece, because a forked child must leave
// it as it is: the thread does not exist there, so it can be neither joined nor destroyed, and a
// condition variable that remembers it as a waiter would block in its destructor.
struct Meeting {
  std::mutex mutex;
  std::condition_variable work;  // something to do for the worker
  std::condition_variable done;  // a task has run
  std::thread worker;
};

Status run_safely(const TaskQueue::Runner& runner, const TaskDescriptor& task) noexcept {
  try {
    try {
      return runner(task);
    } catch (const std::exception& failure) {
      return Error{ErrorCode::kDescriptor, std::string("the task threw: ") + failure.what()};
    } catch (...) {
      return Error{ErrorCode::kDescriptor, "the task threw something that is no std::exception"};
    }
  } catch (...) {
    return Error{ErrorCode::kDescriptor, {}};  // no memory for the message
  }
}

Status foreign_ticket(bool null) {
  return Error{ErrorCode::kInvalidArgument,
               null ? "the task handle is empty" : "the task handle is of another device"};
}

}  // namespace

struct TaskQueue::State {
  explicit State(Runner run) : runner(std::move(run)), meeting(std::make_unique<Meeting>()) {}

  void work(Meeting& at) noexcept {
    std::unique_lock lock(at.mutex);
    while (true) {
      at.work.wait(lock, [this] { return queue.empty() ? stop : forks == 0; });
      if (queue.empty()) {
        return;
      }
      const std::shared_ptr<TaskTicket> ticket = std::move(queue.front());
      queue.pop_front();
      running = true;
      current = ticket;
      lock.unlock();
      Status status = run_safely(runner, std::exchange(ticket->task, {}));
      lock.lock();
      ticket->status = std::move(status);
      ticket->done = true;
      running = false;
      current = nullptr;
      idle.store(queue.empty(), std::memory_order_release);
      at.done.notify_all();
    }
  }

  // Call with the lock held. There is no worker before the first task, nor in a forked child.
  void ensure_worker() {
    if (!meeting->worker.joinable() && !queue.empty()) {
      meeting->worker = std::thread([this, at = meeting.get()] { work(*at); });
    }
  }

  // As ensure_worker; where the system has no thread to give, the tasks end with that as their
  // error rather than never.
  void ensure_worker_or_fail() {
    try {
      ensure_worker();
    } catch (const std::system_error& failure) {
      for (const auto& ticket : queue) {
        ticket->status = Error{ErrorCode::kDescriptor,
                               std::string("no worker thread for the task: ") + failure.what()};
        ticket->done = true;
      }
      queue.clear();
      idle.store(current == nullptr, std::memory_order_release);
      meeting->done.notify_all();
    }
  }

  Runner runner;
  std::unique_ptr<Meeting> meeting;
  std::unique_ptr<Meeting> spare;          // for a child, made before the fork
  std::unique_lock<std::mutex> fork_lock;  // held over a fork
  // Guarded by meeting->mutex:
  std::deque<std::shared_ptr<TaskTicket>> queue;
  bool running{false};
  // Nothing is queued and nothing runs. Read without the lock, by those who would wait for nothing.
  std::atomic<bool> idle{true};
  std::shared_ptr<TaskTicket> current;  // the one that runs
  bool stop{false};
  std::size_t forks{0};  // callers of before_fork that wait for the worker, or have it waiting
};

TaskQueue::TaskQueue(Runner runner) : state_(std::make_unique<State>(std::move(runner))) {}

TaskQueue::~TaskQueue() {
  {
    const std::lock_guard lock(state_->meeting->mutex);
    state_->stop = true;
    state_->ensure_worker_or_fail();
  }
  state_->meeting->work.notify_all();
  if (state_->meeting->worker.joinable()) {
    state_->meeting->worker.join();
  }
}

std::shared_ptr<TaskTicket> TaskQueue::submit(TaskDescriptor task) {
  auto ticket = std::make_shared<TaskTicket>(state_.get(), std::move(task));
  {
    const std::lock_guard lock(state_->meeting->mutex);
    state_->queue.push_back(ticket);
    state_->idle.store(false, std::memory_order_release);
    state_->ensure_worker_or_fail();
  }
  state_->meeting->work.notify_one();
  return ticket;
}

Status TaskQueue::wait(const std::shared_ptr<TaskTicket>& ticket) {
  if (ticket == nullptr || ticket->owner != state_.get()) {
    return foreign_ticket(ticket == nullptr);
  }
  std::unique_lock lock(state_->meeting->mutex);
  state_->ensure_worker_or_fail();
  state_->meeting->done.wait(lock, [&] { return ticket->done; });
  return ticket->status;
}

bool TaskQueue::is_done(const std::shared_ptr<TaskTicket>& ticket) const {
  if (ticket == nullptr || ticket->owner != state_.get()) {
    return true;  // nothing to wait for; wait() says what is wrong
  }
  const std::lock_guard lock(state_->meeting->mutex);
  state_->ensure_worker_or_fail();
  return ticket->done;
}

void TaskQueue::drain() {
  if (state_->idle.load(std::memory_order_acquire)) return;
  std::unique_lock lock(state_->meeting->mutex);
  state_->ensure_worker_or_fail();
  // Tasks run in order, so what was there is done when its last is; what comes meanwhile may wait.
  const auto last = state_->queue.empty() ? state_->current : state_->queue.back();
  if (last) state_->meeting->done.wait(lock, [&] { return last->done; });
}

void TaskQueue::before_fork() {
  std::unique_lock lock(state_->meeting->mutex);
  ++state_->forks;
  state_->meeting->done.wait(lock, [&] { return !state_->running; });
  if (state_->spare == nullptr) {
    state_->spare = std::make_unique<Meeting>();
  }
  state_->fork_lock = std::move(lock);
}

void TaskQueue::after_fork_in_parent() {
  std::unique_lock<std::mutex> lock = std::move(state_->fork_lock);
  --state_->forks;
  lock.unlock();
  state_->meeting->work.notify_one();
}

void TaskQueue::after_fork_in_child() {
  // Other callers of before_fork, and every waiter, are threads that the child does not have.
  state_->forks = 0;
  // NOLINTNEXTLINE(bugprone-unused-return-value): the mutex is left behind with its meeting
  state_->fork_lock.release();
  // NOLINTNEXTLINE(bugprone-unused-return-value): leaked, see Meeting
  static_cast<void>(state_->meeting.release());
  state_->meeting = std::move(state_->spare);
}

}  // namespace tfmbs::fabric
