// Every operation of every set of the list, on the shapes of a small classifier (784 -> 60 -> 10)
// and of a large layer. One thread. Times are a call's; items are products or elements.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "ceilings.hpp"
#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/format/group_scales.hpp"
#include "tfmbs/kernels/kernels.hpp"
#include "tfmbs/kernels/weight_statistics.hpp"

namespace {

using namespace tfmbs;
using namespace tfmbs::kernels;

struct Shape {
  std::size_t depth;
  std::size_t outputs;
};
constexpr Shape kShapes[] = {{784, 60}, {60, 10}, {4096, 4096}};
constexpr std::size_t kRows[] = {1, 8, 64, 512};
// Layers of which the price of group scales is measured.
constexpr Shape kGroupedShapes[] = {{2560, 6912}, {6912, 2560}, {4096, 4096}};

BitPlaneMatrix random_planes(std::size_t rows, std::size_t trits, double zeros) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> uniform(0, 1);
  BitPlaneMatrix planes(rows, trits);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t k = 0; k < trits; ++k) {
      if (uniform(random) < zeros) continue;
      std::uint64_t* word = planes.row(r) + bit_plane_word(k);
      word[0] |= std::uint64_t{1} << (k % 64);
      if (uniform(random) < 0.5) word[kPlaneWords] |= std::uint64_t{1} << (k % 64);
    }
  }
  return planes;
}

void count_items(benchmark::State& state, std::size_t items) {
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(items));
}

const char* layout_name(WeightLayout layout) {
  constexpr const char* kNames[] = {"quads", "pairs", "fives", "quads", "fives"};
  return kNames[static_cast<std::size_t>(layout)];
}

// More than the last-level cache, for products whose weights come from memory.
constexpr std::size_t kColdBytes = std::size_t{192} << 20;

// `cold` goes round as many copies of the weights as kColdBytes holds.
void matmul(benchmark::State& state, const KernelSet& set, WeightLayout layout, Shape shape,
            std::size_t rows, bool cold) {
  const BitPlaneMatrix activations = random_planes(rows, shape.depth, 0.3);
  std::vector<std::int8_t> values(rows * shape.depth);
  std::mt19937 random(3);
  for (std::int8_t& value : values) value = static_cast<std::int8_t>(random() % 255 - 127);
  std::vector<WeightPanels> weights;
  {
    const BitPlaneMatrix planes = random_planes(shape.outputs, shape.depth, 0.3);
    do {
      weights.emplace_back(layout, shape.outputs, shape.depth);
      if (!weights.back().set_rows(0, planes.view()).ok()) return state.SkipWithError("set_rows");
    } while (cold && weights.size() * weights.back().bytes() < kColdBytes);
  }
  std::vector<std::int32_t> out(rows * shape.outputs);
  struct alignas(kScratchAlignment) Line {
    std::byte bytes[kScratchAlignment];
  };
  std::vector<Line> scratch((set.int8_scratch.bytes + sizeof(Line) - 1) / sizeof(Line));
  std::size_t turn = 0;
  for (auto _ : state) {
    const WeightPanelsView view = weights[turn++ % weights.size()].view();
    if (is_int8(layout)) {
      set.int8_matmul({.activations = values.data(),
                       .rows = rows,
                       .row_stride = shape.depth,
                       .weights = view,
                       .first_output = 0,
                       .outputs = shape.outputs,
                       .out = out.data(),
                       .out_stride = shape.outputs,
                       .scratch = scratch.empty() ? nullptr : scratch.front().bytes});
    } else {
      set.trit_matmul({.activations = activations.view().words,
                       .rows = rows,
                       .weights = view,
                       .first_output = 0,
                       .outputs = shape.outputs,
                       .out = out.data(),
                       .out_stride = shape.outputs});
    }
    benchmark::ClobberMemory();
  }
  count_items(state, rows * shape.outputs * shape.depth);
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(weights.front().bytes()));
}

// A product with its epilogue, in calls of 64 rows as a layer makes them: with one scale where
// `group` is 0, else with group scales.
void layer(benchmark::State& state, const KernelSet& set, WeightLayout layout, Shape shape,
           std::size_t rows, std::size_t group, bool cold) {
  constexpr std::size_t kCallRows = 64;
  constexpr std::size_t kCallSums = std::size_t{1} << 18;
  const BitPlaneMatrix activations = random_planes(rows, shape.depth, 0.3);
  std::vector<std::int8_t> values(rows * shape.depth);
  std::mt19937 random(3);
  for (std::int8_t& value : values) value = static_cast<std::int8_t>(random() % 255 - 127);
  std::vector<WeightPanels> weights;
  std::vector<GroupScales> scales;
  {
    const BitPlaneMatrix planes = random_planes(shape.outputs, shape.depth, 0.3);
    do {
      weights.emplace_back(layout, shape.outputs, shape.depth);
      if (!weights.back().set_rows(0, planes.view()).ok()) return state.SkipWithError("set_rows");
      if (group == 0) continue;
      scales.emplace_back(shape.outputs, shape.depth, group);
      const std::vector<float> ones(shape.outputs * scales.back().view().groups(), 0.75F);
      if (!scales.back().set_rows(0, ones).ok()) return state.SkipWithError("set_rows");
    } while (cold && weights.size() * weights.back().bytes() < kColdBytes);
  }
  const std::vector<double> row_scales(rows, 0.5);
  const std::vector<double> output_scales(shape.outputs, 0.25);
  std::vector<float> out(rows * shape.outputs);
  const std::size_t call_rows = std::min(rows, kCallRows);
  const std::size_t most = kCallSums / call_rows / kPanelOutputs * kPanelOutputs;
  const std::size_t calls = (shape.outputs + most - 1) / most;
  const std::size_t width =
      (shape.outputs / calls + kPanelOutputs - 1) / kPanelOutputs * kPanelOutputs;
  std::vector<std::int32_t> sums(call_rows * width);
  std::vector<float> scaled(call_rows * width);
  struct alignas(kScratchAlignment) Line {
    std::byte bytes[kScratchAlignment];
  };
  std::vector<Line> scratch((set.int8_scratch.bytes + sizeof(Line) - 1) / sizeof(Line));
  std::size_t turn = 0;
  for (auto _ : state) {
    const std::size_t copy = turn++ % weights.size();
    for (std::size_t n = 0; n < shape.outputs; n += width) {
      const std::size_t outputs = std::min(width, shape.outputs - n);
      for (std::size_t m = 0; m < rows; m += kCallRows) {
        const std::size_t count = std::min(kCallRows, rows - m);
        const std::int8_t* a = values.data() + m * shape.depth;
        const std::uint64_t* planes = activations.view().row(m);
        const WeightPanelsView panels = weights[copy].view();
        if (group > 0 && is_int8(layout)) {
          set.grouped_int8_matmul({.activations = a,
                                   .rows = count,
                                   .row_stride = shape.depth,
                                   .weights = panels,
                                   .scales = scales[copy].view(),
                                   .first_output = n,
                                   .outputs = outputs,
                                   .out = scaled.data(),
                                   .out_stride = outputs});
        } else if (group > 0) {
          set.grouped_trit_matmul({.activations = planes,
                                   .rows = count,
                                   .weights = panels,
                                   .scales = scales[copy].view(),
                                   .first_output = n,
                                   .outputs = outputs,
                                   .out = scaled.data(),
                                   .out_stride = outputs});
        } else if (is_int8(layout)) {
          set.int8_matmul({.activations = a,
                           .rows = count,
                           .row_stride = shape.depth,
                           .weights = panels,
                           .first_output = n,
                           .outputs = outputs,
                           .out = sums.data(),
                           .out_stride = outputs,
                           .scratch = scratch.empty() ? nullptr : scratch.front().bytes});
        } else {
          set.trit_matmul({.activations = planes,
                           .rows = count,
                           .weights = panels,
                           .first_output = n,
                           .outputs = outputs,
                           .out = sums.data(),
                           .out_stride = outputs});
        }
        set.epilogue({.accumulators = sums.data(),
                      .rows = count,
                      .outputs = outputs,
                      .accumulator_stride = outputs,
                      .row_scales = row_scales.data() + m,
                      .output_scales = group > 0 ? nullptr : output_scales.data() + n,
                      .output_scale_step = 0,
                      .bias = nullptr,
                      .bias_type = FloatType::kFloat32,
                      .nan_rows = nullptr,
                      .nan_outputs = nullptr,
                      .out = out.data() + m * shape.outputs + n,
                      .out_type = FloatType::kFloat32,
                      .out_stride = shape.outputs,
                      .wide = false,
                      .scaled_accumulators = group > 0 ? scaled.data() : nullptr});
      }
    }
    benchmark::ClobberMemory();
  }
  count_items(state, rows * shape.outputs * shape.depth);
}

void products(benchmark::State& state, tfmbs_ceiling ceiling) {
  std::size_t items = 0;
  for (auto _ : state) items += ceiling();
  if (items == 0) return state.SkipWithError("this CPU lacks the instruction");
  state.SetItemsProcessed(static_cast<std::int64_t>(items));
}

void read_memory(benchmark::State& state, std::size_t bytes) {
  struct alignas(64) Line {
    unsigned char bytes[64];
  };
  const std::vector<Line> data(bytes / sizeof(Line), Line{{1}});
  for (auto _ : state) benchmark::DoNotOptimize(tfmbs_read(data.data(), bytes));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes));
}

template <typename T>
std::vector<T> random_values(std::size_t count) {
  std::mt19937_64 random(2);
  std::uniform_real_distribution<double> uniform(-1, 1);
  std::vector<T> values(count);
  for (T& value : values) {
    // For the 16-bit formats any bits below the NaNs' will do.
    value =
        std::is_integral_v<T> ? static_cast<T>(random() & 0xBBFF) : static_cast<T>(uniform(random));
  }
  return values;
}

template <typename T>
void ternarize(benchmark::State& state, const KernelSet& set, FloatType type, std::size_t depth,
               std::size_t rows) {
  const std::vector<T> input = random_values<T>(rows * depth);
  BitPlaneMatrix planes(rows, depth);
  std::vector<std::uint8_t> nan_rows(rows);
  const TernarizeArgs args{.input = input.data(),
                           .type = type,
                           .rows = rows,
                           .columns = depth,
                           .row_stride = depth,
                           .thresholds = nullptr,
                           .planes = planes.data(),
                           .nan_rows = nan_rows.data()};
  for (auto _ : state) {
    set.ternarize(args);
    benchmark::ClobberMemory();
  }
  count_items(state, rows * depth);
}

template <typename T>
void quantize_int8(benchmark::State& state, const KernelSet& set, FloatType type, std::size_t depth,
                   std::size_t rows, bool with_planes) {
  const std::vector<T> input = random_values<T>(rows * depth);
  BitPlaneMatrix planes(kInt8Planes * rows, depth);
  std::vector<std::int8_t> values(rows * depth);
  std::vector<double> scales(rows);
  std::vector<std::uint8_t> nan_rows(rows);
  const QuantizeInt8Args args{.input = input.data(),
                              .type = type,
                              .rows = rows,
                              .columns = depth,
                              .row_stride = depth,
                              .planes = with_planes ? planes.data() : nullptr,
                              .plane_stride = rows * planes.row_words(),
                              .values = values.data(),
                              .scales = scales.data(),
                              .nan_rows = nan_rows.data()};
  for (auto _ : state) {
    set.quantize_int8(args);
    benchmark::ClobberMemory();
  }
  count_items(state, rows * depth);
}

void field_count(benchmark::State& state, const KernelSet& set, std::size_t depth, std::size_t rows,
                 std::size_t chunk) {
  const BitPlaneMatrix activations = random_planes(rows, depth, 0.3);
  const std::size_t chunks = (depth + chunk - 1) / chunk;
  std::vector<std::uint32_t> cycles(rows * chunks);
  std::uint64_t steps = 0;
  const FieldCountArgs args{.activations = activations.view().words,
                            .rows = rows,
                            .trits = depth,
                            .chunk_depth = chunk,
                            .cycles = cycles.data(),
                            .steps = &steps};
  for (auto _ : state) {
    set.field_count(args);
    benchmark::ClobberMemory();
  }
  count_items(state, rows * depth);
}

// Passes of four tiles with a fifth of their depths empty; items are fields of a tile.
void tile_cycles(benchmark::State& state, const KernelSet& set, std::size_t depth, std::size_t rows,
                 std::size_t lanes) {
  constexpr std::size_t kSlots = 4;
  const std::size_t fields = fields_of(depth);
  const std::size_t stride = fields * field_copies(lanes);
  const BitPlaneMatrix activations = random_planes(rows, depth, 0.3);
  const BitPlaneMatrix occupied = random_planes(kSlots * lanes, depth, 0.2);
  std::vector<std::uint16_t> packed(rows * stride);
  std::vector<std::uint16_t> occupancy(kSlots * fields * lanes);
  set.pack_fields({.activations = activations.view().words,
                   .rows = rows,
                   .trits = depth,
                   .copies = field_copies(lanes),
                   .fields = packed.data(),
                   .row_stride = stride});
  set.pack_fields({.activations = occupied.view().words,
                   .rows = kSlots * lanes,
                   .trits = depth,
                   .copies = 1,
                   .fields = occupancy.data(),
                   .row_stride = fields});
  std::vector<std::uint32_t> floors(fields * lanes);
  std::vector<std::uint64_t> sums(kSlots + 2 * lanes);
  const TileCyclesArgs args{.fields = packed.data(),
                            .rows = rows,
                            .planes = 1,
                            .field_count = fields,
                            .chunk_fields = 34,
                            .occupancy = occupancy.data(),
                            .slots = kSlots,
                            .lanes = lanes,
                            .floors = floors.data(),
                            .slot_cycles = sums.data(),
                            .slowest = sums.data() + kSlots,
                            .stages = sums.data() + kSlots + lanes};
  for (auto _ : state) {
    set.tile_cycles(args);
    benchmark::ClobberMemory();
  }
  count_items(state, rows * fields * kSlots * lanes);
}

void column_count(benchmark::State& state, const KernelSet& set, std::size_t depth,
                  std::size_t rows) {
  const BitPlaneMatrix activations = random_planes(rows, depth, 0.3);
  std::vector<std::uint32_t> counts(depth);
  const ColumnCountArgs args{.activations = activations.view().words,
                             .rows = rows,
                             .trits = depth,
                             .counts = counts.data()};
  for (auto _ : state) {
    set.column_count(args);
    benchmark::ClobberMemory();
  }
  count_items(state, rows * depth);
}

void digit_count(benchmark::State& state, const KernelSet& set, std::size_t depth,
                 std::size_t rows) {
  std::vector<std::int8_t> values(rows * depth);
  std::mt19937 random(1);
  for (std::int8_t& value : values) value = static_cast<std::int8_t>(random() % 255 - 127);
  std::vector<std::uint32_t> cycles(rows);
  std::vector<std::uint32_t> counts(depth);
  std::uint64_t steps = 0;
  const DigitCountArgs args{.values = values.data(),
                            .rows = rows,
                            .depth = depth,
                            .chunk_depth = (depth + 14) / 15 * 15,
                            .cycles = cycles.data(),
                            .steps = &steps,
                            .counts = counts.data()};
  for (auto _ : state) {
    set.digit_count(args);
    benchmark::ClobberMemory();
  }
  count_items(state, rows * depth);
}

void epilogue(benchmark::State& state, const KernelSet& set, std::size_t outputs, std::size_t rows,
              FloatType out_type) {
  const std::vector<std::int32_t> accumulators(rows * outputs, 17);
  const std::vector<double> row_scales(rows, 0.5);
  const std::vector<double> output_scales(outputs, 0.25);
  const std::vector<float> bias = random_values<float>(outputs);
  std::vector<double> out(rows * outputs);
  const EpilogueArgs args{.accumulators = accumulators.data(),
                          .rows = rows,
                          .outputs = outputs,
                          .accumulator_stride = outputs,
                          .row_scales = row_scales.data(),
                          .output_scales = output_scales.data(),
                          .output_scale_step = 1,
                          .bias = bias.data(),
                          .bias_type = FloatType::kFloat32,
                          .nan_rows = nullptr,
                          .nan_outputs = nullptr,
                          .out = out.data(),
                          .out_type = out_type,
                          .out_stride = outputs,
                          .wide = false};
  for (auto _ : state) {
    set.epilogue(args);
    benchmark::ClobberMemory();
  }
  count_items(state, rows * outputs);
}

void fingerprint_of(benchmark::State& state, const KernelSet& set, std::size_t bytes) {
  const std::vector<unsigned char> data(bytes, 3);
  for (auto _ : state) benchmark::DoNotOptimize(set.fingerprint(data.data(), bytes));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes));
}

// What the quantizers take of a matrix: absmean one sum, twn two of each row.
void weight_statistics_of(benchmark::State& state, FloatType type, Shape shape, bool by_row) {
  const std::size_t row_bytes = shape.depth * float_bytes(type);
  std::vector<unsigned char> weights(shape.outputs * row_bytes);
  const std::vector<float> values = random_values<float>(shape.depth * shape.outputs);
  for (std::size_t i = 0; i < values.size(); ++i) {
    unsigned char* to = weights.data() + i * float_bytes(type);
    const auto bits = std::bit_cast<std::uint32_t>(values[i]);
    const auto bfloat16 = static_cast<std::uint16_t>(bits >> 16);
    // The same fraction, cut, and an exponent below 1.
    const auto float16 = static_cast<std::uint16_t>((bits >> 13 & 0x3FF) | (bits >> 23 & 7) << 10);
    const auto wide = static_cast<double>(values[i]) * 0.7;
    const void* from = type == FloatType::kFloat64    ? static_cast<const void*>(&wide)
                       : type == FloatType::kFloat32  ? static_cast<const void*>(&bits)
                       : type == FloatType::kBFloat16 ? static_cast<const void*>(&bfloat16)
                                                      : static_cast<const void*>(&float16);
    std::memcpy(to, from, float_bytes(type));
  }
  for (auto _ : state) {
    if (!by_row) {
      MagnitudeSum sum(type);
      sum.add(weights.data(), values.size());
      benchmark::DoNotOptimize(sum.mean());
      continue;
    }
    for (std::size_t r = 0; r < shape.outputs; ++r) {
      MagnitudeSum all(type);
      all.add(weights.data() + r * row_bytes, shape.depth);
      MagnitudeSum above(type);
      above.add(weights.data() + r * row_bytes, shape.depth, 0.7 * all.mean());
      benchmark::DoNotOptimize(above.mean());
    }
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(weights.size()));
}

template <typename... Parts>
std::string join(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

template <typename Function>
void add(const std::string& name, Function function) {
  benchmark::RegisterBenchmark(name.c_str(), function);
}

// Names are operation/M<rows>/<depth>[x<outputs>]/<set>.
void register_set(const KernelSet& set, Shape shape, std::size_t rows) {
  const std::string by_depth = join("/M", rows, "/", shape.depth, "/", set.name);
  const std::string by_output = join("/M", rows, "/", shape.outputs, "/", set.name);
  for (const PreferredLayouts& layouts : {set.trit_layouts, set.int8_layouts}) {
    for (const bool cold : {false, true}) {
      const WeightLayout layout = cold ? layouts.streamed : layouts.cached;
      if (cold && (shape.depth < 2560 || rows > 8)) continue;
      add(join(is_int8(layout) ? "int8_matmul_" : "trit_matmul_", layout_name(layout),
               cold ? "_cold" : "", "/M", rows, "/", shape.depth, "x", shape.outputs, "/",
               set.name),
          [=](benchmark::State& state) { matmul(state, set, layout, shape, rows, cold); });
    }
  }
  add("ternarize_fp32" + by_depth, [=](benchmark::State& state) {
    ternarize<float>(state, set, FloatType::kFloat32, shape.depth, rows);
  });
  add("ternarize_bf16" + by_depth, [=](benchmark::State& state) {
    ternarize<std::uint16_t>(state, set, FloatType::kBFloat16, shape.depth, rows);
  });
  for (const bool with_planes : {false, true}) {
    const std::string name = with_planes ? "quantize_int8_and_planes_fp32" : "quantize_int8_fp32";
    add(name + by_depth, [=](benchmark::State& state) {
      quantize_int8<float>(state, set, FloatType::kFloat32, shape.depth, rows, with_planes);
    });
  }
  add("field_count_one_chunk" + by_depth, [=](benchmark::State& state) {
    field_count(state, set, shape.depth, rows, (shape.depth + 14) / 15 * 15);
  });
  add("field_count_chunks_of_510" + by_depth,
      [=](benchmark::State& state) { field_count(state, set, shape.depth, rows, 510); });
  for (const std::size_t lanes : {1UL, 8UL, 32UL}) {
    add("tile_cycles_of_" + std::to_string(lanes) + "_passes" + by_depth,
        [=](benchmark::State& state) { tile_cycles(state, set, shape.depth, rows, lanes); });
  }
  add("column_count" + by_depth,
      [=](benchmark::State& state) { column_count(state, set, shape.depth, rows); });
  add("digit_count" + by_depth,
      [=](benchmark::State& state) { digit_count(state, set, shape.depth, rows); });
  add("epilogue_fp32" + by_output, [=](benchmark::State& state) {
    epilogue(state, set, shape.outputs, rows, FloatType::kFloat32);
  });
  add("epilogue_bf16" + by_output, [=](benchmark::State& state) {
    epilogue(state, set, shape.outputs, rows, FloatType::kBFloat16);
  });
}

// Names are layer_<product>[_cold]/M<rows>/<depth>x<outputs>/<scales>/<set>.
void register_layers(const KernelSet& set, Shape shape, std::size_t rows) {
  for (const bool cold : {false, true}) {
    if (cold && rows > 8) continue;
    for (const PreferredLayouts& layouts : {set.trit_layouts, set.int8_layouts}) {
      for (const std::size_t group : {0UL, 32UL, 64UL, 128UL, 256UL}) {
        // Group scales need the layout for cached weights.
        const WeightLayout layout = cold && group == 0 ? layouts.streamed : layouts.cached;
        const std::string scales = group == 0 ? "one_scale" : join("groups_of_", group);
        add(join("layer_", is_int8(layout) ? "int8" : "trit", cold ? "_cold" : "", "/M", rows, "/",
                 shape.depth, "x", shape.outputs, "/", scales, "/", set.name),
            [=](benchmark::State& state) { layer(state, set, layout, shape, rows, group, cold); });
      }
    }
  }
}

void register_all() {
  for (const Peak& peak : kPeaks) {
    add(join("peak_", peak.name), [=](benchmark::State& state) { products(state, peak.function); });
  }
  for (const std::size_t kibibytes : {256UL, 4096UL, 12288UL, kColdBytes >> 10}) {
    add(join("ceiling_read/KiB", kibibytes),
        [=](benchmark::State& state) { read_memory(state, kibibytes << 10); });
  }
  for (const KernelSet& set : all_kernels()) {
    if (!set.supported()) continue;
    for (const std::size_t rows : kRows) {
      for (const Shape shape : kShapes) register_set(set, shape, rows);
      for (const Shape shape : kGroupedShapes) register_layers(set, shape, rows);
    }
    for (const std::size_t bytes : {2400UL, 188160UL, 67108864UL}) {
      add(join("fingerprint/", bytes, "/", set.name),
          [=](benchmark::State& state) { fingerprint_of(state, set, bytes); });
    }
  }
  constexpr std::pair<FloatType, const char*> kTypes[] = {{FloatType::kFloat32, "fp32"},
                                                          {FloatType::kFloat64, "fp64"},
                                                          {FloatType::kBFloat16, "bf16"},
                                                          {FloatType::kFloat16, "fp16"}};
  for (const Shape shape : {Shape{1000, 1000}, Shape{2560, 6912}}) {
    for (const auto& [type, name] : kTypes) {
      for (const bool by_row : {false, true}) {
        add(join("weight_statistics_", by_row ? "twn_" : "absmean_", name, "/", shape.depth, "x",
                 shape.outputs),
            [=, type = type](benchmark::State& state) {
              weight_statistics_of(state, type, shape, by_row);
            });
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
