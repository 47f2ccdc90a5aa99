// Every refusal names its class and leaves the device as it was, bit for bit.
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "support.hpp"
#include "tfmbs/fabric/device.hpp"

namespace tfmbs::fabric {
namespace {

constexpr std::uint64_t kHuge = ~std::uint64_t{0};

// A device with something everywhere.
Device used_device() {
  std::mt19937_64 random(21);
  Device device{FabricConfig{}};
  const Geometry& g = device.geometry();
  for (std::uint32_t t = 0; t < g.tiles(); ++t) {
    EXPECT_TRUE(
        device.load(g.bank_a_base(t), words_of_trits(random_trits(15 * 1024, 0.5, random))).ok());
  }
  EXPECT_TRUE(
      device.load(g.broadcast_base(), words_of_trits(random_trits(15 * 1024, 0.5, random))).ok());
  EXPECT_TRUE(device.load(0x100, Words(15, 0x7FFFFFFF)).ok());
  EXPECT_TRUE(device.run({.depth = 1000, .lanes = 15, .tile_mask = 15, .accumulate = true}).ok());
  return device;
}

void expect_refused(const std::function<Status(Device&)>& action, ErrorCode code,
                    const std::string& mentions) {
  Device device = used_device();
  const Snapshot before = snapshot(device);
  const Status status = action(device);
  ASSERT_FALSE(status.ok()) << mentions;
  EXPECT_EQ(status.error().code, code) << status.error().message;
  EXPECT_NE(status.error().message.find(mentions), std::string::npos) << status.error().message;
  EXPECT_EQ(snapshot(device), before) << mentions;
}

TEST(Refused, TaskDescriptors) {
  const TaskDescriptor good{.depth = 30, .lanes = 15, .tile_mask = 15};
  ASSERT_TRUE(validate(good, Geometry{}).ok());
  struct Case {
    std::function<void(TaskDescriptor&)> spoil;
    const char* mentions;
  };
  const std::vector<Case> cases{
      {[](auto& t) { t.depth = 0; }, "depth"},
      {[](auto& t) { t.depth = 1025; }, "1025"},
      {[](auto& t) { t.depth = 0xFFFFFFFF; }, "depth"},
      {[](auto& t) { t.lanes = 0; }, "lanes"},
      {[](auto& t) { t.lanes = 16; }, "16"},
      {[](auto& t) { t.lanes = 0xFFFFFFFF; }, "lanes"},
      {[](auto& t) { t.planes = 0; }, "planes"},
      {[](auto& t) { t.planes = 5; }, "planes"},
      {[](auto& t) { t.planes = 0xFFFFFFFF; }, "planes"},
      {[](auto& t) { t.tile_mask = 0; }, "tile_mask"},
      {[](auto& t) { t.tile_mask = 16; }, "0x10"},
      {[](auto& t) { t.tile_mask = kHuge; }, "tile_mask"},
      {[](auto& t) { t.lane_mask = {0}; }, "no lane"},
      {[](auto& t) { t.lane_mask = {1U << 15}; }, "lane 15"},
      {[](auto& t) { t.lane_mask = {1, 1}; }, "lane 64"},
      {[](auto& t) { t.weight_base = 2; }, "weight_base"},
      {[](auto& t) { t.weight_base = 4 * 995; }, "weight_base"},
      {[](auto& t) { t.weight_base = 4 * 1024; }, "weight_base"},
      {[](auto& t) { t.weight_base = kHuge - 3; }, "weight_base"},
      {[](auto& t) { t.activation_base = 1; }, "activation_base"},
      {[](auto& t) { t.activation_base = 4 * 1023; }, "activation_base"},
      {[](auto& t) { t.activation_base = kHuge - 3; }, "activation_base"},
      {[](auto& t) {
         t.depth = 900;
         t.planes = 6;
         t.activation_base = 4 * 665;  // 360 words from 665 on end at 1,025
       },
       "activation_base"},
  };
  for (const Case& c : cases) {
    TaskDescriptor task = good;
    c.spoil(task);
    EXPECT_EQ(validate(task, Geometry{}).error().code, ErrorCode::kDescriptor);
    expect_refused([&](Device& device) { return device.run(task); }, ErrorCode::kDescriptor,
                   c.mentions);
    // Not even the transfers beside it, nor a good pass before it.
    const std::vector<TaskDescriptor> passes{{.depth = 1, .lanes = 1, .tile_mask = 1}, task};
    const Words words(1, 1);
    const Transfer transfer{.word = 1023, .source = words};
    expect_refused(
        [&](Device& device) {
          return device.execute({.passes = passes, .transfers = {&transfer, 1}});
        },
        ErrorCode::kDescriptor, c.mentions);
  }
  // The edges that are allowed.
  for (const TaskDescriptor& task :
       {TaskDescriptor{.depth = 1024, .lanes = 15},
        TaskDescriptor{
            .weight_base = 4 * 1023, .activation_base = 4 * 1023, .depth = 1, .lanes = 1},
        TaskDescriptor{.activation_base = 4 * 664, .depth = 900, .lanes = 15, .planes = 6},
        TaskDescriptor{.depth = 1, .lanes = 15, .lane_mask = {1U << 14, 0, 0}}}) {
    EXPECT_TRUE(used_device().run(task).ok());
  }
}

TEST(Refused, OverlappingPasses) {
  const std::vector<TaskDescriptor> passes{{.depth = 1, .lanes = 1, .tile_mask = 0b0110},
                                           {.depth = 1, .lanes = 1, .tile_mask = 0b0001},
                                           {.depth = 1, .lanes = 1, .tile_mask = 0b1100}};
  expect_refused([&](Device& device) { return device.execute({.passes = passes}); },
                 ErrorCode::kDescriptor, "0x4");
}

TEST(Refused, Transfers) {
  using Kind = Transfer::Kind;
  const Words good(4, 1);
  const Words fault{0, 0, 0x0000F300, 0};
  const Words top{0, 0x01000000};
  Words out(4);
  struct Case {
    Transfer transfer;
    ErrorCode code;
    const char* mentions;
  };
  const std::vector<Case> cases{
      {{.kind = Kind::kWeights, .tile_mask = 0, .source = good}, ErrorCode::kDescriptor, "0x0"},
      {{.kind = Kind::kWeights, .tile_mask = 3, .source = good}, ErrorCode::kDescriptor, "0x3"},
      {{.kind = Kind::kWeights, .tile_mask = 16, .source = good}, ErrorCode::kDescriptor, "0x10"},
      {{.kind = Kind::kActivations, .tile_mask = 0, .source = good}, ErrorCode::kDescriptor, "0x0"},
      {{.kind = Kind::kActivations, .tile_mask = 17, .source = good},
       ErrorCode::kDescriptor,
       "0x11"},
      {{.kind = Kind::kPartialsIn, .tile_mask = 3, .source = good}, ErrorCode::kDescriptor, "0x3"},
      {{.kind = Kind::kResultsOut, .tile_mask = 3, .destination = out},
       ErrorCode::kDescriptor,
       "0x3"},
      {{.kind = Kind::kWeights, .word = 1021, .source = good}, ErrorCode::kAddress, "1021"},
      {{.kind = Kind::kWeights, .word = 0xFFFFFFFF, .source = good}, ErrorCode::kAddress, "1024"},
      {{.kind = Kind::kActivations, .word = 1021, .source = good}, ErrorCode::kAddress, "1021"},
      {{.kind = Kind::kPartialsIn, .word = 12, .source = good}, ErrorCode::kAddress, "15"},
      {{.kind = Kind::kResultsOut, .word = 12, .destination = out}, ErrorCode::kAddress, "15"},
      {{.kind = Kind::kWeights, .source = fault}, ErrorCode::kEncoding, "offset 9"},
      {{.kind = Kind::kActivations, .source = fault}, ErrorCode::kEncoding, "offset 9"},
      {{.kind = Kind::kActivations, .source = top}, ErrorCode::kEncoding, "offset 7"},
  };
  for (const Case& c : cases) {
    // A good transfer before it, and a pass beside it, do not happen either.
    const std::vector<Transfer> transfers{
        {.kind = Kind::kWeights, .tile_mask = 2, .word = 900, .source = good}, c.transfer};
    const TaskDescriptor task{
        .weight_base = 400, .activation_base = 400, .depth = 9, .lanes = 15, .tile_mask = 8};
    expect_refused([&](Device& device) { return device.execute({{&task, 1}, transfers}); }, c.code,
                   c.mentions);
  }
}

TEST(Refused, ATransferOverWhatAPassReads) {
  using Kind = Transfer::Kind;
  const Words words(4, 1);
  // Bank A words 100...129 and Bank B words 200...201 of tiles 1 and 2.
  const TaskDescriptor task{
      .weight_base = 4 * 100, .activation_base = 4 * 200, .depth = 30, .lanes = 15, .tile_mask = 6};
  const auto execute = [&](Device& device, const Transfer& transfer) {
    return device.execute({{&task, 1}, {&transfer, 1}});
  };
  const Transfer weights{.kind = Kind::kWeights, .tile_mask = 2, .source = words};
  const Transfer activations{.kind = Kind::kActivations, .tile_mask = 15, .source = words};
  for (const std::uint32_t at : {97U, 100U, 129U}) {
    Transfer t = weights;
    t.word = at;
    expect_refused([&](Device& d) { return execute(d, t); }, ErrorCode::kDescriptor, "reads");
    t.tile_mask = 1;  // another tile's bank
    Device device = used_device();
    EXPECT_TRUE(execute(device, t).ok());
  }
  for (const std::uint32_t at : {197U, 201U}) {
    Transfer t = activations;
    t.word = at;
    expect_refused([&](Device& d) { return execute(d, t); }, ErrorCode::kDescriptor, "reads");
    t.tile_mask = 9;
    Device device = used_device();
    EXPECT_TRUE(execute(device, t).ok());
  }
  for (const std::uint32_t at : {96U, 130U}) {
    Transfer t = weights;
    t.word = at;
    Device device = used_device();
    EXPECT_TRUE(execute(device, t).ok());
  }
}

TEST(Refused, HostAccess) {
  for (const std::uint64_t address : {0x1000U, 0x2000U, 0x9000U}) {
    expect_refused([&](Device& device) { return device.load(address, Words{1, 2, 0x00F40000}); },
                   ErrorCode::kEncoding, "offset 10");
    Device device = used_device();
    EXPECT_EQ(device.load(address, Words{1, 2, 0x00F40000}).error().offset, 10U);
  }
  struct Access {
    std::uint64_t address;
    std::size_t words;
  };
  for (const Access& a : {Access{0x1000, 1025}, Access{0x1002, 1}, Access{0, 1}, Access{0x13C, 1},
                          Access{0x1000, 0}, Access{0xA000, 1}, Access{kHuge - 3, 1}}) {
    expect_refused([&](Device& device) { return device.load(a.address, Words(a.words, 1)); },
                   ErrorCode::kAddress, "0x");
    expect_refused(
        [&](Device& device) {
          Words words(a.words);
          return device.read(a.address, words);
        },
        ErrorCode::kAddress, "0x");
  }
  expect_refused(
      [&](Device& device) {
        Words words(1);
        return device.read(0x9000, words);
      },
      ErrorCode::kAddress, "broadcast window");
}

}  // namespace
}  // namespace tfmbs::fabric
