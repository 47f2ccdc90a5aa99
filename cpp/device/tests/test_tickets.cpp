// Admissions that overlap, end in another order, or end without a commit.
#include <gtest/gtest.h>

#include <memory>
#include <new>
#include <string>
#include <vector>

#include "device_layer.hpp"
#include "failing_new.hpp"
#include "same_device.hpp"

namespace tfmbs::device {
namespace {

// One tile of 15 lanes: a layer of up to 15 outputs takes as many of the 60 words as it has depths.
const fabric::FabricConfig kSmall{Geometry::make(1, 15, 60).value(), {}};
constexpr std::uint64_t kOutputs = 15;

std::unique_ptr<DeviceLayer> make(const std::shared_ptr<Fabric>& fabric, const std::string& name,
                                  std::uint64_t depth) {
  return std::make_unique<DeviceLayer>(fabric, name, kOutputs, depth, 2,
                                       static_cast<unsigned>(depth));
}

std::shared_ptr<Fabric> open(Engine engine = Engine::kClosedForm) {
  return Fabric::open(engine, kSmall);
}

// The work is admitted, and ends without a commit once others have come.
class Open {
 public:
  explicit Open(DeviceLayer& layer) : layer_(layer) {
    EXPECT_TRUE(layer.admit(*ticket_, scratch_));
  }
  void commit() {
    ASSERT_TRUE(layer_.run(*ticket_, scratch_));
    ticket_->commit();
    ticket_.reset();
  }
  void abort() { ticket_.reset(); }

 private:
  DeviceLayer& layer_;
  execution::Scratch scratch_;
  std::unique_ptr<Fabric::Ticket> ticket_{std::make_unique<Fabric::Ticket>()};
};

TEST(Tickets, OneThatEndsWithoutACommitHasNotBeen) {
  for (const Engine engine : {Engine::kClosedForm, Engine::kStepped, Engine::kLockstep}) {
    SCOPED_TRACE(name_of(engine));
    const auto fabric = open(engine);
    const auto clean = open(engine);
    std::vector<std::unique_ptr<DeviceLayer>> layers;
    for (const auto& device : {fabric, clean}) {
      layers.push_back(make(device, "resident", 40));
      layers.push_back(make(device, "other", 30));
      layers.push_back(make(device, "streams", 100));
      ASSERT_TRUE(layers[layers.size() - 3]->forward());
    }
    for (std::size_t l = 0; l < 3; ++l) {
      execution::Scratch scratch;
      Fabric::Ticket ticket;
      ASSERT_TRUE(layers[l]->admit(ticket, scratch));
      if (l != 1) {
        ASSERT_TRUE(layers[l]->run(ticket, scratch));
      }
    }
    expect_same_device(*fabric, *clean);
    for (const std::size_t l : {0U, 1U, 2U, 1U}) {
      ASSERT_TRUE(layers[l]->forward());
      ASSERT_TRUE(layers[3 + l]->forward());
    }
    expect_same_device(*fabric, *clean);
  }
}

// What streams through the words of a layer that made way for another one has overwritten them.
TEST(Tickets, ALayerWhoseWordsOthersUsedSinceStaysOut) {
  const auto fabric = open();
  const auto resident = make(fabric, "resident", 40);
  const auto first = make(fabric, "first", 100);
  const auto second = make(fabric, "second", 90);
  ASSERT_TRUE(resident->forward());
  Open failing(*first);
  Open passing(*second);
  failing.abort();
  passing.commit();
  EXPECT_FALSE(resident->account().profile().resident);
  EXPECT_EQ(fabric->profile().value().total.evictions, 1U);
  EXPECT_EQ(resident->account().profile().counters.evictions, 1U);
  ASSERT_TRUE(resident->forward());
  EXPECT_EQ(fabric->profile().value().total.residency_misses, 3U);
  ASSERT_TRUE(second->forward());  // not through the window that it had while nobody lay there
  EXPECT_FALSE(resident->account().profile().resident);
  EXPECT_EQ(fabric->profile().value().total.evictions, 2U);
}

TEST(Tickets, ALayerThatLostItsPlaceUnderWayStaysOut) {
  const auto fabric = open();
  const auto layer = make(fabric, "layer", 40);
  const auto other = make(fabric, "other", 39);
  ASSERT_TRUE(layer->forward());
  Open failing(*layer);
  Open passing(*other);
  failing.abort();
  passing.commit();
  EXPECT_FALSE(layer->account().profile().resident);
  EXPECT_TRUE(other->account().profile().resident);
  ASSERT_TRUE(layer->forward());
  const auto total = fabric->profile().value().total;
  EXPECT_EQ(total.residency_hits, 0U);
  EXPECT_EQ(total.residency_misses, 3U);
  EXPECT_EQ(total.evictions, 2U);
}

// Nor is it taken for loaded where what took its place has left again.
TEST(Tickets, ALayerWhosePlaceWasTakenAndLeftStaysOut) {
  const auto fabric = open();
  const auto resident = make(fabric, "resident", 40);
  const auto first = make(fabric, "first", 39);
  auto second = make(fabric, "second", 38);
  ASSERT_TRUE(resident->forward());
  Open failing(*first);
  Open passing(*second);
  passing.commit();
  second.reset();
  failing.abort();
  EXPECT_FALSE(resident->account().profile().resident);
  EXPECT_FALSE(first->account().profile().resident);
  EXPECT_EQ(resident->account().profile().counters.evictions, 1U);
}

// A second admission of a layer finds what the first one loads. Where the first fails, its load
// stays, as a prefetch.
TEST(Tickets, ALoadThatLaterWorkFoundStays) {
  for (const bool commits_first : {false, true}) {
    const auto fabric = open();
    const auto clean = open(Engine::kStepped);
    const auto layer = make(fabric, "layer", 40);
    const auto clean_layer = make(clean, "layer", 40);
    Open failing(*layer);
    Open passing(*layer);
    if (commits_first) passing.commit();
    failing.abort();
    if (!commits_first) passing.commit();
    ASSERT_TRUE(clean_layer->prefetch().value());
    ASSERT_TRUE(clean_layer->forward());
    expect_same_device(*fabric, *clean);
  }
}

TEST(Tickets, CommitInAnyOrder) {
  const auto fabric = open();
  const auto clean = open(Engine::kStepped);
  std::vector<std::unique_ptr<DeviceLayer>> layers;
  for (const auto& device : {fabric, clean}) {
    for (const std::uint64_t depth : {40U, 30U, 100U}) {
      layers.push_back(make(device, "layer" + std::to_string(depth), depth));
    }
  }
  std::vector<std::size_t> order{0, 1, 2, 0, 1, 0};
  // Scratches of one thread nest, so admissions end in the reverse order.
  std::vector<std::unique_ptr<Open>> open_ones;
  for (const std::size_t l : order) open_ones.push_back(std::make_unique<Open>(*layers[l]));
  while (!open_ones.empty()) {
    open_ones.back()->commit();
    open_ones.pop_back();
  }
  for (const std::size_t l : order) ASSERT_TRUE(layers[3 + l]->forward());
  expect_same_device(*fabric, *clean);
}

// Layers come and leave while work is under way; a layer's end allocates nothing.
TEST(Tickets, LayersLeaveWithoutMemoryWhileWorkIsUnderWay) {
  const auto fabric = open();
  const auto layer = make(fabric, "layer", 40);
  Open under_way(*layer);
  for (int i = 0; i < 100; ++i) {
    auto passing = make(fabric, "passing", 10);
    testing::FailingNew failing(0);
    passing.reset();
    EXPECT_FALSE(failing.stop());
  }
  under_way.commit();
  EXPECT_EQ(fabric->profile().value().layers.size(), 1U);
}

bool throws_bad_alloc(const auto& work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    return true;
  }
  return false;
}

// A layer with a given address, and a low-level load, each of which takes a resident layer's place.
TEST(Tickets, WhereMemoryRunsOutNobodyMakesWay) {
  for (const Engine engine : {Engine::kClosedForm, Engine::kStepped, Engine::kLockstep}) {
    for (const bool enters : {true, false}) {
      SCOPED_TRACE(std::string(name_of(engine)) + (enters ? ", enter" : ", load"));
      bool failed = true;
      for (std::size_t after = 0; failed; ++after) {
        const auto fabric = open(engine);
        const auto clean = open(engine);
        const auto layer = make(fabric, "layer", 40);
        const auto clean_layer = make(clean, "layer", 40);
        ASSERT_TRUE(layer->forward());
        ASSERT_TRUE(clean_layer->forward());
        std::unique_ptr<Account> entered;
        const std::vector<std::uint32_t> words(20, 0);
        LayerDescription description{.name = "a name that is longer than a short string holds",
                                     .outputs = 15,
                                     .depth = 5,
                                     .weight_address = kSmall.geometry.bank_a_base(0) + 4};
        testing::FailingNew failing(after);
        const bool thrown = throws_bad_alloc([&] {
          if (enters) {
            entered = Account::enter(description, fabric).value();
          } else {
            EXPECT_TRUE(fabric->load(kSmall.geometry.bank_a_base(0), words));
          }
        });
        failed = failing.stop();
        ASSERT_EQ(thrown, failed);
        EXPECT_EQ(layer->account().profile().resident, thrown);
        if (thrown) expect_same_device(*fabric, *clean);
        if (::testing::Test::HasFailure()) return;
        ASSERT_LT(after, 1000U);
      }
    }
  }
}

// Telemetry that was switched on between a layer's statistics and its admission: that pass is not
// counted, by no driver.
TEST(Tickets, WorkWithoutStatisticsIsNotCounted) {
  const auto fabric = open(Engine::kLockstep);
  const auto layer = make(fabric, "layer", 40);
  const Status status = layer->forward(false);
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(fabric->profile().value().total, fabric::Counters{});
  ASSERT_TRUE(layer->forward());
  EXPECT_EQ(fabric->profile().value().total.residency_hits, 1U);
}

TEST(Tickets, LockstepOfLocksteps) {
  const auto fabric =
      Fabric::open(make_lockstep_driver(kSmall, make_driver(Engine::kLockstep, kSmall),
                                        make_lockstep_driver(kSmall, make_stepped_driver(kSmall),
                                                             make_closed_form_driver(kSmall))),
                   kSmall);
  const auto clean = open(Engine::kStepped);
  for (const std::uint64_t depth : {40U, 30U, 100U}) {
    const auto layer = make(fabric, "layer", depth);
    const auto clean_layer = make(clean, "layer", depth);
    const Status status = layer->forward();
    ASSERT_TRUE(status) << status.error().message;
    ASSERT_TRUE(clean_layer->forward());
    expect_same_device(*fabric, *clean);
  }
}

}  // namespace
}  // namespace tfmbs::device
