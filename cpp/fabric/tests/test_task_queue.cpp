#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "tfmbs/fabric/task_queue.hpp"

namespace tfmbs::fabric {
namespace {

// A door that a task waits at until the test opens it.
class Door {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_{false};
};

TaskDescriptor numbered(std::uint32_t depth) { return {.depth = depth}; }

TEST(TaskQueue, RunsInOrderAndGivesEachItsStatus) {
  std::vector<std::uint32_t> ran;
  TaskQueue queue([&](const TaskDescriptor& task) -> Status {
    ran.push_back(task.depth);
    if (task.depth % 3 == 0) {
      return Error{ErrorCode::kDescriptor, std::to_string(task.depth)};
    }
    return {};
  });
  std::vector<std::shared_ptr<TaskTicket>> tickets;
  tickets.reserve(100);
  for (std::uint32_t i = 0; i < 100; ++i) {
    tickets.push_back(queue.submit(numbered(i)));
  }
  for (std::uint32_t i = 100; i-- > 0;) {
    for (int twice = 0; twice < 2; ++twice) {
      const Status status = queue.wait(tickets[i]);
      ASSERT_EQ(status.ok(), i % 3 != 0);
      if (!status.ok()) {
        EXPECT_EQ(status.error().message, std::to_string(i));
      }
    }
    EXPECT_TRUE(queue.is_done(tickets[i]));
  }
  for (std::uint32_t i = 0; i < 100; ++i) {
    EXPECT_EQ(ran[i], i);
  }
}

TEST(TaskQueue, ExceptionsBecomeStatuses) {
  TaskQueue queue([](const TaskDescriptor& task) -> Status {
    if (task.depth == 1) {
      throw std::runtime_error("no more sand");
    }
    if (task.depth == 2) {
      throw 7;  // NOLINT(bugprone-std-exception-baseclass): on purpose
    }
    return {};
  });
  const auto first = queue.submit(numbered(1));
  const auto second = queue.submit(numbered(2));
  const auto third = queue.submit(numbered(3));
  const Status failed = queue.wait(first);
  ASSERT_FALSE(failed.ok());
  EXPECT_NE(failed.error().message.find("no more sand"), std::string::npos);
  EXPECT_FALSE(queue.wait(second).ok());
  EXPECT_TRUE(queue.wait(third).ok());
}

TEST(TaskQueue, IsDoneAndDrain) {
  Door door;
  std::atomic<int> ran{0};
  TaskQueue queue([&](const TaskDescriptor&) -> Status {
    door.pass();
    ++ran;
    return {};
  });
  queue.drain();  // nothing there: returns at once
  const auto first = queue.submit({});
  const auto second = queue.submit({});
  EXPECT_FALSE(queue.is_done(first));
  EXPECT_FALSE(queue.is_done(second));
  door.open();
  queue.drain();
  EXPECT_EQ(ran, 2);
  EXPECT_TRUE(queue.is_done(second));
}

TEST(TaskQueue, ForeignTicketsAreRefused) {
  const auto nothing = [](const TaskDescriptor&) -> Status { return {}; };
  TaskQueue queue(nothing);
  TaskQueue other(nothing);
  const auto ticket = other.submit({});
  EXPECT_EQ(queue.wait(ticket).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(queue.wait(nullptr).error().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(queue.is_done(ticket));
  EXPECT_TRUE(queue.is_done(nullptr));
}

TEST(TaskQueue, DestructionRunsWhatIsQueued) {
  std::atomic<int> ran{0};
  std::shared_ptr<TaskTicket> kept;
  {
    TaskQueue queue([&](const TaskDescriptor&) -> Status {
      ++ran;
      return {};
    });
    for (int i = 0; i < 1000; ++i) {
      kept = queue.submit({});
    }
  }
  EXPECT_EQ(ran, 1000);
  EXPECT_NE(kept, nullptr);  // a handle may outlive its queue
  const TaskQueue unused([](const TaskDescriptor&) -> Status { return {}; });
}

TEST(TaskQueue, ManyThreads) {
  std::atomic<int> inside{0};
  std::atomic<std::uint64_t> sum{0};
  TaskQueue queue([&](const TaskDescriptor& task) -> Status {
    EXPECT_EQ(inside.fetch_add(1), 0);  // one at a time
    sum += task.depth;
    inside.fetch_sub(1);
    return {};
  });
  std::vector<std::thread> threads;
  threads.reserve(8);
  for (std::uint32_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint32_t i = 0; i < 500; ++i) {
        const auto ticket = queue.submit(numbered(t * 500 + i));
        if (i % 7 == 0) {
          EXPECT_TRUE(queue.wait(ticket).ok());
        } else if (i % 11 == 0) {
          queue.drain();
          EXPECT_TRUE(queue.is_done(ticket));
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  queue.drain();
  EXPECT_EQ(sum, 4000ULL * 3999 / 2);
}

TEST(TaskQueue, ManyWaitForOneTask) {
  Door door;
  TaskQueue queue([&](const TaskDescriptor&) -> Status {
    door.pass();
    return {};
  });
  const auto ticket = queue.submit({});
  std::vector<std::thread> threads;
  threads.reserve(8);
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] { EXPECT_TRUE(queue.wait(ticket).ok()); });
  }
  door.open();
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST(TaskQueue, AMillionTasksLeaveNothing) {
  std::uint64_t ran = 0;
  TaskQueue queue([&](const TaskDescriptor&) -> Status {
    ++ran;
    return {};
  });
  std::vector<std::weak_ptr<TaskTicket>> watched;
  for (int i = 0; i < 1'000'000; ++i) {
    TaskDescriptor task;
    task.lane_mask.assign(1, 1);
    const auto ticket = queue.submit(std::move(task));
    if (i % 10'000 == 0) {
      watched.emplace_back(ticket);
      EXPECT_TRUE(queue.wait(ticket).ok());  // also bounds what is queued
    }
  }
  queue.drain();
  // One more, so that the worker has let go of everything before it.
  EXPECT_TRUE(queue.wait(queue.submit({})).ok());
  EXPECT_EQ(ran, 1'000'001U);
  for (const auto& ticket : watched) {
    EXPECT_TRUE(ticket.expired());
  }
}

}  // namespace
}  // namespace tfmbs::fabric
