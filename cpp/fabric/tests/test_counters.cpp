#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <string_view>

#include "tfmbs/fabric/counters.hpp"

namespace tfmbs::fabric {
namespace {

TEST(Counters, EverySumAndEveryNameOnce) {
  Counters a;
  Counters b;
  std::uint64_t value = 1;
  std::set<std::string_view> names;
  for (const CounterField& field : kCounterFields) {
    a.*field.member = value;
    b.*field.member = 1000 * value;
    ++value;
    names.insert(field.name);
  }
  EXPECT_EQ(names.size(), kCounterFields.size());
  a += b;
  value = 1;
  for (const CounterField& field : kCounterFields) {
    EXPECT_EQ(a.*field.member, 1001 * value++) << field.name;
  }
  TileCounters c;
  for (const TileCounterField& field : kTileCounterFields) {
    c.*field.member = value++;
  }
  const TileCounters once = c;
  c += once;
  for (const TileCounterField& field : kTileCounterFields) {
    EXPECT_EQ(c.*field.member, 2 * (once.*field.member)) << field.name;
  }
}

TEST(Counters, DerivedFigures) {
  Counters counts;
  EXPECT_EQ(counts.utilization(Geometry{}), 0.0);
  EXPECT_EQ(counts.energy_pj(EnergyTable{}), 0.0);
  counts.cycles = 10;
  counts.dense_cycles = 25;
  counts.active_ops = 300;
  counts.zero_skips = 40;
  counts.mem_reads = 2;
  counts.mem_writes = 3;
  counts.sram_reads = 20;
  counts.sram_writes = 7;
  counts.sram_reads_saved = 4;
  EXPECT_EQ(counts.cycles_saved(), 15U);
  EXPECT_DOUBLE_EQ(counts.utilization(Geometry{}), 300.0 / (10 * 4 * 15));
  // 0.1 * 300 + 5 * 27 + 650 * 5 and 0.1 * 40 + 5 * 4
  EXPECT_DOUBLE_EQ(counts.energy_pj(EnergyTable{}), 30.0 + 135.0 + 3250.0);
  EXPECT_DOUBLE_EQ(counts.energy_saved_pj(EnergyTable{}), 4.0 + 20.0);
  const EnergyTable table{.mac_pj = 1.0, .sram_pj = 0.0, .dram_pj = 2.0};
  EXPECT_DOUBLE_EQ(counts.energy_pj(table), 310.0);
}

}  // namespace
}  // namespace tfmbs::fabric
