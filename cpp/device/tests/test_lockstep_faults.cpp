// A fault planted in one of two drivers: lockstep finds it, names its place, and stops.
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "device_layer.hpp"
#include "faulty_driver.hpp"

namespace tfmbs::device {
namespace {

using testing::Fault;
using testing::FaultyDriver;

// Two tiles of 15 lanes, 60 words a bank. "small": 40 outputs of depth 20, so tile 0 has the groups
// of pass 0 and pass 1 at words 0 and 20, tile 1 that of pass 0. "large": 15 outputs of depth 100
// on tile 0, streamed in chunks of 30, 30, 30 and 10, in turn at words 0 and 30.
const Geometry kGeometry = Geometry::make(2, 15, 60).value();
const fabric::FabricConfig kConfig{kGeometry, {}};

std::string hex_address(std::uint64_t address) {
  std::string text;
  for (; address != 0; address /= 16) text.insert(text.begin(), "0123456789abcdef"[address % 16]);
  return "0x" + text;
}

struct Planted {
  std::string name;
  Fault fault;
  std::vector<std::string> said;
};

// The pieces: 0 loads "small", 1 and 2 are its forward passes, 3 one of "large", 4 a low-level
// load, 5 a task.
constexpr std::size_t kPieces = 6;

class Life {
 public:
  explicit Life(std::unique_ptr<Driver> driver)
      : fabric_(Fabric::open(std::move(driver), kConfig)),
        small_(fabric_, "small", 40, 20, 3, 1),
        large_(fabric_, "large", 15, 100, 2, 2) {}

  Status piece(std::size_t number) {
    const std::vector<std::uint32_t> word{121};
    switch (number) {
      case 0: {
        auto loaded = small_.prefetch();
        if (loaded) return {};
        return std::move(loaded).error();
      }
      case 1:
      case 2:
        return small_.forward();
      case 3:
        return large_.forward();
      case 4:
        return fabric_->load(kGeometry.bank_b_base(1) + 4 * 59, word);
      default:
        return fabric_->run({.depth = 10, .lanes = 15, .tile_mask = 3});
    }
  }
  [[nodiscard]] Fabric& fabric() const noexcept { return *fabric_; }

 private:
  std::shared_ptr<Fabric> fabric_;
  DeviceLayer small_;
  DeviceLayer large_;
};

std::vector<Planted> planted() {
  const auto a = [](std::uint32_t tile, std::uint64_t word) {
    return kGeometry.bank_a_base(tile) + 4 * word;
  };
  const auto b = [](std::uint32_t tile, std::uint64_t word) {
    return kGeometry.bank_b_base(tile) + 4 * word;
  };
  const auto at = [](std::uint64_t address, const std::string& where) {
    return where + ", address " + hex_address(address);
  };
  const std::string load = "layer 'small', load: ";
  const std::string small = "layer 'small', forward pass of 3 samples: ";
  const std::string large = "layer 'large', forward pass of 2 samples: ";
  std::vector<Planted> all{
      {"a word of a load",
       {.piece = 0, .address = a(0, 25)},
       {load, at(a(0, 25), "word 25 of Bank A of tile 0"), "(pass 1, chunk 0)"}},
      {"of the other tile",
       {.piece = 0, .address = a(1, 19)},
       {load, at(a(1, 19), "word 19 of Bank A of tile 1"), "(pass 0, chunk 0)"}},
      {"where that tile has no pass",
       {.piece = 0, .address = a(1, 25)},
       {load, at(a(1, 25), "word 25 of Bank A of tile 1"), "(outside of the layer's words)"}},
      {"the last word of a bank",
       {.piece = 2, .address = a(1, 59)},
       {small, at(a(1, 59), "word 59 of Bank A of tile 1"), "(outside of the layer's words)"}},
      // Jobs alternate between words 0 and 2: pass 1's are 3, 4 and 5.
      {"a word of Bank B",
       {.piece = 1, .address = b(0, 1)},
       {small, at(b(0, 1), "word 1 of Bank B of tile 0"), "(pass 1, chunk 0, sample 1)"}},
      {"of its other slot",
       {.piece = 1, .address = b(0, 3)},
       {small, at(b(0, 3), "word 3 of Bank B of tile 0"), "(pass 1, chunk 0, sample 2)"}},
      {"of a tile that the last pass leaves out",
       {.piece = 1, .address = b(1, 2)},
       {small, at(b(1, 2), "word 2 of Bank B of tile 1"), "(pass 0, chunk 0, sample 1)"}},
      {"a word of a window",
       {.piece = 3, .address = a(0, 35)},
       {large, at(a(0, 35), "word 35 of Bank A of tile 0"), "(pass 0, chunk 3)"}},
      {"under a shorter chunk",
       {.piece = 3, .address = a(0, 45)},
       {large, at(a(0, 45), "word 45 of Bank A of tile 0"), "(pass 0, chunk 1)"}},
      {"a result",
       {.piece = 2, .address = kGeometry.results_base(1) + 4 * 14},
       {small, at(kGeometry.results_base(1) + 4 * 14, "word 14 of the results of tile 1")}},
      {"a word of a low-level load",
       {.piece = 4, .address = b(1, 59)},
       {"a task or load: ", at(b(1, 59), "word 59 of Bank B of tile 1")}},
      {"a result of a task",
       {.piece = 5, .address = kGeometry.results_base(0)},
       {"a task or load: ", "word 0 of the results of tile 0"}},
      {"an error of a load",
       {.piece = 4, .error = true},
       {"a task or load: ", "errors differ: ", "\"the planted error\"", "no error"}},
      {"an error of a pass",
       {.piece = 2, .error = true},
       {small, "errors differ: ", "\"the planted error\""}},
  };
  for (const auto& field : fabric::kCounterFields) {
    const std::string name(field.name);
    all.push_back({"counter " + name,
                   {.piece = 2, .counter = field.member},
                   {small, "counter '" + name + "' is "}});
    all.push_back({"counted " + name,
                   {.piece = 3, .counted = field.member},
                   {large, "counted as '" + name + "' "}});
  }
  for (const auto& field : fabric::kTileCounterFields) {
    const std::string name(field.name);
    all.push_back({"tile counter " + name,
                   {.piece = 0, .tile_counter = field.member, .tile = 1},
                   {load, "counter '" + name + "' of tile 1 is "}});
  }
  return all;
}

std::unique_ptr<Driver> make(Engine engine) { return make_driver(engine, kConfig); }

// The faulty driver first or second, of either kind, beside either kind.
void for_each_pair(const Fault& fault, bool stepped_only,
                   const std::function<void(std::unique_ptr<Driver>, const std::string&)>& body) {
  for (const Engine sound : {Engine::kClosedForm, Engine::kStepped}) {
    for (const Engine faulty : {Engine::kClosedForm, Engine::kStepped}) {
      if (stepped_only && faulty != Engine::kStepped) continue;
      for (const bool faulty_first : {false, true}) {
        auto one = make(sound);
        std::unique_ptr<Driver> other = std::make_unique<FaultyDriver>(make(faulty), fault);
        std::string pair = std::string(one->name()) + " and " + std::string(other->name());
        if (faulty_first) {
          std::swap(one, other);
          pair = std::string(one->name()) + " and " + std::string(other->name());
        }
        SCOPED_TRACE(pair);
        body(make_lockstep_driver(kConfig, std::move(one), std::move(other)), pair);
      }
    }
  }
}

void expect_found(std::unique_ptr<Driver> driver, const std::string& pair, std::size_t piece,
                  const std::vector<std::string>& said) {
  Life life(std::move(driver));
  for (std::size_t p = 0; p < piece; ++p) {
    const Status status = life.piece(p);
    ASSERT_TRUE(status) << p << ": " << status.error().message;
  }
  Fabric& fabric = life.fabric();
  const Profile before = fabric.profile().value();
  const Status found = life.piece(piece);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ErrorCode::kMismatch);
  const std::string& message = found.error().message;
  EXPECT_EQ(message.rfind("lockstep of " + pair + ": ", 0), 0U) << message;
  for (const std::string& part : said) {
    EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' in: " << message;
  }
  // It stops: everything that works the device gives the same error, and nothing happens.
  const auto expect_stopped = [&](const Status& status) {
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::kMismatch);
    EXPECT_EQ(status.error().message, message);
  };
  for (std::size_t p = 0; p < kPieces; ++p) expect_stopped(life.piece(p));
  std::vector<std::uint32_t> word(1);
  expect_stopped(fabric.read(kGeometry.bank_a_base(0), word));
  const auto results = fabric.results(0);
  ASSERT_FALSE(results);
  EXPECT_EQ(results.error().message, message);
  if (piece < 4) {  // a layer's work is undone
    const Profile after = fabric.profile().value();
    for (std::size_t l = 0; l < before.layers.size(); ++l) {
      EXPECT_EQ(before.layers[l].counters, after.layers[l].counters);
      EXPECT_EQ(before.layers[l].resident, after.layers[l].resident);
    }
  }
  EXPECT_TRUE(fabric.close());
}

TEST(LockstepFaults, AreFoundNamedAndFinal) {
  for (const Planted& one : planted()) {
    SCOPED_TRACE(one.name);
    for_each_pair(one.fault, false, [&](std::unique_ptr<Driver> driver, const std::string& pair) {
      expect_found(std::move(driver), pair, one.fault.piece, one.said);
    });
    if (HasFailure()) return;
  }
}

// Sample 2, output 31 of 40: group 2, so pass 1 on tile 0.
TEST(LockstepFaults, AProductIsNamedBySampleOutputAndTile) {
  const Fault fault{.piece = 1, .product = 2 * 40 + 31 + 1};
  for_each_pair(fault, true, [](std::unique_ptr<Driver> driver, const std::string& pair) {
    expect_found(std::move(driver), pair, 1,
                 {"layer 'small', forward pass of 3 samples: ",
                  "the result of sample 2, output 31 (pass 1, tile 0) is ", " by faulty stepped"});
  });
}

TEST(LockstepFaults, NoFaultIsFoundWhereThereIsNone) {
  for_each_pair({.piece = kPieces}, false, [](std::unique_ptr<Driver> driver, const auto&) {
    Life life(std::move(driver));
    for (std::size_t p = 0; p < kPieces; ++p) {
      const Status status = life.piece(p);
      ASSERT_TRUE(status) << p << ": " << status.error().message;
    }
  });
}

}  // namespace
}  // namespace tfmbs::device
