// Queues over fork(). POSIX only.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <latch>
#include <memory>
#include <thread>
#include <vector>

#include "fork_gate.hpp"
#include "tfmbs/fabric/task_queue.hpp"

namespace tfmbs::fabric {
namespace {

// Forks with the queue's hooks; the child's verdict is its exit status, and a child that hangs is
// ended by SIGALRM.
void expect_child(TaskQueue& queue, const std::function<bool()>& child,
                  testing::ForkGate::Hold gate = {}) {
  queue.before_fork();
  const pid_t id = fork();
  if (id == 0) {
    alarm(60);
    queue.after_fork_in_child();
    _exit(child() ? 0 : 1);
  }
  queue.after_fork_in_parent();
  if (gate) gate.unlock();
  ASSERT_GT(id, 0);
  int status = 0;
  ASSERT_EQ(waitpid(id, &status, 0), id);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
}

TEST(TaskQueueFork, AChildHasAWorkerOfItsOwn) {
  std::atomic<int> ran{0};
  auto queue = std::make_unique<TaskQueue>([&](const TaskDescriptor&) -> Status {
    ++ran;
    return {};
  });
  const auto before = queue->submit({});
  ASSERT_TRUE(queue->wait(before).ok());  // the worker exists and waits
  expect_child(*queue, [&] {
    bool good = queue->is_done(before) && queue->wait(before).ok();
    for (int i = 0; i < 100; ++i) {
      good = good && queue->wait(queue->submit({})).ok();
    }
    queue->drain();
    queue.reset();
    return good && ran == 101;
  });
  EXPECT_EQ(ran, 1);
  EXPECT_TRUE(queue->wait(queue->submit({})).ok());
  EXPECT_EQ(ran, 2);
}

TEST(TaskQueueFork, AChildOfAnUnusedQueue) {
  auto queue = std::make_unique<TaskQueue>([](const TaskDescriptor&) -> Status { return {}; });
  expect_child(*queue, [&] {
    queue.reset();  // nothing to join
    return true;
  });
}

TEST(TaskQueueFork, QueuedTasksRunOnBothSides) {
  constexpr int kTasks = 300;
  std::atomic<int> ran{0};
  auto queue = std::make_unique<TaskQueue>([&](const TaskDescriptor&) -> Status {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    ++ran;
    return {};
  });
  std::vector<std::shared_ptr<TaskTicket>> tickets;
  tickets.reserve(kTasks);
  for (int i = 0; i < kTasks; ++i) {
    tickets.push_back(queue->submit({}));
  }
  ASSERT_TRUE(queue->wait(tickets.front()).ok());
  expect_child(*queue, [&] {
    // A fork waits for the task that runs, not for those behind it.
    const bool early = ran < kTasks;
    // Polling alone gets there too: is_done() starts the worker.
    while (!queue->is_done(tickets.back())) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    const bool all = ran == kTasks;
    queue.reset();
    return early && all;
  });
  EXPECT_TRUE(queue->wait(tickets.back()).ok());
  EXPECT_EQ(ran, kTasks);
}

TEST(TaskQueueFork, AChildDestroysAQueueWithTasksLeft) {
  std::atomic<int> ran{0};
  auto queue = std::make_unique<TaskQueue>([&](const TaskDescriptor&) -> Status {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ++ran;
    return {};
  });
  for (int i = 0; i < 20; ++i) {
    queue->submit({});
  }
  expect_child(*queue, [&] {
    queue.reset();
    return ran == 20;
  });
  queue->drain();
  EXPECT_EQ(ran, 20);
}

TEST(TaskQueueFork, GenerationsWhileOthersSubmitAndWait) {
  std::atomic<bool> inside{false};
  TaskQueue queue([&](const TaskDescriptor&) -> Status {
    inside = true;
    std::this_thread::yield();
    inside = false;
    return {};
  });
  testing::ForkGate gate;
  std::atomic<bool> stop{false};
  std::latch started{3};
  std::vector<std::thread> threads;
  threads.reserve(3);
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      std::shared_ptr<TaskTicket> ticket;
      const auto run_one = [&] {
        {
          const auto hold = gate.allocating();
          ticket = queue.submit({});
        }
        EXPECT_TRUE(queue.wait(ticket).ok());
      };
      run_one();
      started.count_down();
      while (!stop) run_one();
    });
  }
  started.wait();
  for (int i = 0; i < 20; ++i) {
    const auto child = [&] {
      if (inside) {
        return false;  // forked in the middle of a task
      }
      bool good = queue.wait(queue.submit({})).ok();
      // A grandchild: the child's own worker is left behind in turn.
      queue.before_fork();
      const pid_t id = fork();
      if (id == 0) {
        alarm(60);
        queue.after_fork_in_child();
        _exit(queue.wait(queue.submit({})).ok() ? 0 : 1);
      }
      queue.after_fork_in_parent();
      int status = 0;
      good = good && waitpid(id, &status, 0) == id && status == 0;
      return good && queue.wait(queue.submit({})).ok();
    };
    expect_child(queue, child, gate.forking());
  }
  stop = true;
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace
}  // namespace tfmbs::fabric
