// The operations that have one implementation an instruction set. Kernels take raw pointers and
// sizes, never allocate, never throw, run on the calling thread, and trust their caller: ranges and
// sizes were checked above them. Every implementation gives the portable one's bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/format/error.hpp"
#include "tfmbs/format/group_scales.hpp"
#include "tfmbs/format/limits.hpp"
#include "tfmbs/format/weight_panels.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::kernels {

enum class FloatType : std::uint8_t { kFloat32, kFloat64, kBFloat16, kFloat16 };
[[nodiscard]] constexpr std::size_t float_bytes(FloatType type) noexcept {
  return type == FloatType::kFloat64 ? 8 : type == FloatType::kFloat32 ? 4 : 2;
}

inline constexpr std::size_t kInt8Planes = 6;  // balanced trits of -127...127: 3^6 = 729 > 255

// out[m * out_stride + n] = sum over k of activation[m][k] * weight[first_output + n][k], n <
// outputs, k < weights.depth. Exact for every depth up to kMaxDepth. Every set takes every layout
// of its product (weight_panels.hpp); the set's `trit_layouts` and `int8_layouts` are those that it
// is fast with. first_output is a multiple of kPanelOutputs, so that threads share a layer by
// panels.
struct TritMatmulArgs {
  const std::uint64_t* activations;  // bit-plane rows (bit_planes.hpp) of weights.depth trits
  std::size_t rows;
  WeightPanelsView weights;  // a layout of trit x trit
  std::size_t first_output;
  std::size_t outputs;
  std::int32_t* out;
  std::size_t out_stride;  // in elements
};
struct Int8MatmulArgs {
  const std::int8_t* activations;  // -127...127
  std::size_t rows;
  std::size_t row_stride;    // in elements
  WeightPanelsView weights;  // a layout of int8 x trit
  std::size_t first_output;
  std::size_t outputs;
  std::int32_t* out;
  std::size_t out_stride;  // in elements
  // The set's int8_scratch bytes, aligned to kScratchAlignment, of any contents, for this call
  // alone while it is under way; or null, which costs many rows time.
  std::byte* scratch{nullptr};
};
inline constexpr std::size_t kScratchAlignment = 64;

// Products with weights that have group scales (group_scales.hpp):
//   out[m * out_stride + n] = s(groups), where s(0) = +0.0 and
//   s(g + 1) = s(g) + float(S(g)) * scale(first_output + n, g), g = 0, 1, ..., groups - 1,
// and S(g) is the sum of activation[m][k] * weight[first_output + n][k] over the inputs k of group
// g. |S(g)| <= 127 * 256, so int32 and its conversion are exact. Each product and each addition is
// rounded once, in fp32 (no fused multiply-add). Where `wide`, all of it is in fp64, the scale's
// value unchanged, and `out` holds doubles. A sum that is NaN may be any NaN: the epilogue writes
// one. Preconditions: takes_group_scales(weights.layout), and scales of weights.outputs x
// weights.depth. A set is fast with the layout that it prefers for cached weights, and not `wide`.
struct GroupedTritMatmulArgs {
  const std::uint64_t* activations;  // bit-plane rows, as trit_matmul's
  std::size_t rows;
  WeightPanelsView weights;  // a layout of trit x trit
  GroupScalesView scales;
  std::size_t first_output;  // a multiple of kPanelOutputs
  std::size_t outputs;
  void* out;               // fp32, or fp64 where `wide`
  std::size_t out_stride;  // in elements
  bool wide{false};
};
struct GroupedInt8MatmulArgs {
  const std::int8_t* activations;  // -127...127
  std::size_t rows;
  std::size_t row_stride;    // in elements
  WeightPanelsView weights;  // a layout of int8 x trit
  GroupScalesView scales;
  std::size_t first_output;  // a multiple of kPanelOutputs
  std::size_t outputs;
  void* out;               // fp32, or fp64 where `wide`
  std::size_t out_stride;  // in elements
  bool wide{false};
};

// Rows of floats to bit planes: +1 where x > t, -1 where x < -t, else 0, t = thresholds[row] (>= 0,
// compared exactly, in fp64) or 0 where thresholds is null. A NaN becomes 0 and sets nan_rows[row]
// to 1; nan_rows is otherwise set to 0. Padding bits are written as zero.
struct TernarizeArgs {
  const void* input;
  FloatType type;
  std::size_t rows;
  std::size_t columns;
  std::size_t row_stride;    // in elements
  const double* thresholds;  // one a row, or null
  std::uint64_t* planes;     // rows * bit_plane_blocks(columns) * kBlockWords words
  std::uint8_t* nan_rows;    // one a row
};

// Rows of floats to int8 by the row's absolute maximum, as six balanced-trit planes:
//   a = max(max|x|, 1e-5); q = clamp(round_half_even(x * (127 / a)), -127, 127); scale = a / 127
// in fp32 (fp64 where type is fp64), each operation rounded once. A row with a NaN or an infinity
// is all zero, has scale 1, and sets nan_rows[row]. Plane p's rows stand at planes + p *
// plane_stride, p = 0 the most significant. q or the planes are not written where their pointer is
// null. `magnitudes` are for rows of which other processes hold the rest: each counts as the |x| of
// one more value of its row.
struct QuantizeInt8Args {
  const void* input;
  FloatType type;
  std::size_t rows;
  std::size_t columns;
  std::size_t row_stride;    // in elements
  std::uint64_t* planes;     // or null
  std::size_t plane_stride;  // in words, at least rows * bit_plane_blocks(columns) * kBlockWords
  std::int8_t* values;       // rows * columns, or null
  double* scales;            // one a row; an fp32 value unless type is fp64
  std::uint8_t* nan_rows;    // one a row
  const double* magnitudes{nullptr};  // one a row (fp32 values unless type is fp64), or null
};

// Telemetry counts in *fields*, runs of 15 trits (the fabric's activation words): a field of the
// planes x takes max(1, popcount(x)) cycles and popcount(x) steps.
inline constexpr std::size_t kFieldTrits = 15;
[[nodiscard]] constexpr std::size_t fields_of(std::size_t trits) noexcept {
  return (trits + kFieldTrits - 1) / kFieldTrits;
}

// For each row and each chunk of chunk_depth trits (a multiple of 15, or at least `trits`; the last
// chunk may be shorter), over the fields:
//   cycles[row * chunks + chunk] = the cycles; *steps += the steps of all rows
struct FieldCountArgs {
  const std::uint64_t* activations;  // bit-plane rows of `trits` trits
  std::size_t rows;
  std::size_t trits;
  std::size_t chunk_depth;
  std::uint32_t* cycles;
  std::uint64_t* steps;
};

// fields[r * row_stride + j * copies + i] = the bits of row r's trits 15 j ... 15 j + 14 that are
// not zero, the first the lowest, i < copies, j < fields_of(trits).
struct PackFieldsArgs {
  const std::uint64_t* activations;
  std::size_t rows;
  std::size_t trits;
  std::size_t copies;  // 1, 2, 4, 8 or 16
  std::uint16_t* fields;
  std::size_t row_stride;  // in elements
};

// The cycles C of tiles that see only the fields' bits that are occupied, each lane another pass:
//   C(row, chunk, slot, lane) = sum over planes and fields j of the chunk of
//                               max(1, popcount(x[row][plane][j] & occupancy[slot][j][lane]))
//   S(row, chunk, lane)       = max over slots of C
// and adds: slot_cycles[slot] += sum of C, slowest[lane] += sum of S, and where floors is not null
// stages[lane] += sum of max(S, floors[chunk][lane]).
inline constexpr std::size_t kPassLanes = 32;
// Copies of each field that tile_cycles wants for a number of lanes.
[[nodiscard]] constexpr std::size_t field_copies(std::size_t lanes) noexcept {
  return lanes == kPassLanes ? 1 : lanes;
}
struct TileCyclesArgs {
  const std::uint16_t* fields;  // rows x planes x field_count x field_copies(lanes)
  std::size_t rows;
  std::size_t planes;
  std::size_t field_count;
  std::size_t chunk_fields;        // the last chunk may be shorter
  const std::uint16_t* occupancy;  // slots x field_count x lanes
  std::size_t slots;               // 1...64
  std::size_t lanes;               // 1, 2, 4, 8, 16 or 32
  const std::uint32_t* floors;     // chunks x lanes, or null
  std::uint64_t* slot_cycles;
  std::uint64_t* slowest;
  std::uint64_t* stages;
};
// Precondition of tile_cycles: rows * planes * field_count is below this, so that 32 bits hold the
// sums of one call.
inline constexpr std::size_t kMaxTileFields = std::size_t{1} << 27;

// counts[k] += the number of rows whose trit k is not zero, k < trits.
struct ColumnCountArgs {
  const std::uint64_t* activations;
  std::size_t rows;
  std::size_t trits;
  std::uint32_t* counts;
};

// field_count and column_count of the six planes that values of int8 have (quantize_int8), without
// the planes:
//   cycles[row * chunks + chunk] and *steps as field_count gives them, over all planes' fields;
//   counts[k] += the digits that are not zero of all rows' values k, k < depth: at most 6 a row
struct DigitCountArgs {
  const std::int8_t* values;  // rows x depth, -127...127
  std::size_t rows;
  std::size_t depth;
  std::size_t chunk_depth;  // as field_count's; not looked at without cycles
  std::uint32_t* cycles;    // or null
  std::uint64_t* steps;
  std::uint32_t* counts;
};

// sums[r] = sum over k < size of values[k] * weights[r * size + k], modulo 2^64.
struct WeightedSumArgs {
  const std::uint32_t* values;
  const std::uint16_t* weights;
  std::size_t rows;
  std::size_t size;
  std::uint64_t* sums;
};

// out[m][n] = round((float)acc[m][n] * (row_scale[m] * output_scale[n]) + bias[n]) in fp32, or in
// fp64 where `wide`; each operation rounded once (no fused multiply-add). With `relu` what is below
// 0 becomes +0; NaN and -0.0 stay, as torch.relu has it. Then rounded to out_type. NaN where
// nan_rows[m] or nan_outputs[n] is set. `out` overlaps nothing that is read: an output may be
// computed twice. Where scaled_accumulators is not null, its values, a grouped product's, stand in
// for (float)acc; output_scales is then null.
struct EpilogueArgs {
  const std::int32_t* accumulators;  // not looked at where scaled_accumulators is not null
  std::size_t rows;
  std::size_t outputs;
  std::size_t accumulator_stride;  // in elements
  const double* row_scales;        // one a row (fp32 values unless wide), or null for 1
  const double* output_scales;     // see output_scale_step; or null for 1
  std::size_t output_scale_step;   // 0: one scale for all outputs; 1: one each
  const void* bias;                // `outputs` values of bias_type, or null for none
  FloatType bias_type;
  const std::uint8_t* nan_rows;     // or null
  const std::uint8_t* nan_outputs;  // or null
  void* out;
  FloatType out_type;
  std::size_t out_stride;  // in elements
  bool wide;
  bool relu{false};
  const void* scaled_accumulators{nullptr};  // fp32, or fp64 where `wide`; or null
};

// out[m * out_stride + n] = sum over k < depth of activations[m][k] * weights[n][k]: a matrix of
// int8 weights, row by row, as an output head has it. Both are within -127...127; depth <=
// kMaxDenseDepth, for which int32 holds every sum.
struct DenseInt8MatmulArgs {
  const std::int8_t* activations;
  std::size_t rows;
  std::size_t row_stride;  // in elements, as the strides below
  const std::int8_t* weights;
  std::size_t weight_stride;
  std::size_t outputs;
  std::size_t depth;
  std::int32_t* out;
  std::size_t out_stride;
};
inline constexpr std::size_t kMaxDenseDepth = std::size_t{1} << 17;  // 127^2 * 2^17 < 2^31

// The parts of a decoder block between its products. All compute in fp32, each operation rounded
// once, sums in eight lanes of fixed order (float_lanes.hpp), so that every set gives the same
// bits. Their tensors are of one type, fp32 or bf16; a result is rounded to it once where it is
// written.

// out[i] = round(round(x[i] * r) * weight[i]), r = 1 / sqrt(mean of x^2 + epsilon): the inner
// rounding is to `type`, as transformers' RMSNorm has it.
struct RmsNormArgs {
  const void* input;
  const void* weight;
  FloatType type;
  std::size_t size;
  float epsilon;
  void* out;  // may be `input`
};

// out[i] = round(round(f(gate[i])) * up[i]), as a feed-forward part has it in `type`.
enum class GateFunction : std::uint8_t { kSilu, kSquaredRelu };
struct GateArgs {
  const void* gate;
  const void* up;
  FloatType type;
  std::size_t size;
  GateFunction function;
  void* out;  // may be `gate` or `up`
};

// Attention of one position: the queries of `heads` heads that share keys and values.
//   s[h][p] = (query[h] . key[p]) * scaling + mask[p]; w = softmax over p of s[h];
//   out[h] = sum over p of w[p] * value[p]
// Where the mask hides every position, w is 0.
struct AttendArgs {
  const float* queries;    // heads x head_size
  std::size_t heads;       // at least 1
  std::size_t head_size;   // a multiple of kFloatLanes, at most kMaxHeadSize
  const void* keys;        // of position p at p * key_stride
  std::size_t key_stride;  // in elements
  const void* values;
  std::size_t value_stride;
  FloatType type;         // of keys and values: fp32 or bf16
  std::size_t positions;  // at least 1
  const float* mask;      // `positions` values that are added to the scores, or null
  float scaling;
  float* scores;  // heads x attend_score_stride(positions), scratch
  float* out;     // heads x head_size
};
inline constexpr std::size_t kFloatLanes = 8;
inline constexpr std::size_t kMaxHeadSize = 512;
[[nodiscard]] constexpr std::size_t attend_score_stride(std::size_t positions) noexcept {
  return (positions + kFloatLanes - 1) / kFloatLanes * kFloatLanes;
}

// The layouts that a set reads fastest: where the weights stay in a cache, and where they come from
// memory. The second may be the first.
struct PreferredLayouts {
  WeightLayout cached;
  WeightLayout streamed;
};

// Memory that a call has a use for if it is large enough, and lies idle in smaller ones.
struct ScratchUse {
  std::size_t bytes{0};  // 0: none has
  std::size_t least_rows{0};
  std::size_t least_outputs{0};

  [[nodiscard]] constexpr bool serves(std::size_t rows, std::size_t outputs) const noexcept {
    return bytes > 0 && rows >= least_rows && outputs >= least_outputs;
  }
};

// An ISA variant: one implementation of everything, for one instruction set (docs/kernels.md).
// After int8_scratch come the operations and nothing else; each is also a folder of src/.
struct KernelSet {
  std::string_view name;  // what TFMBS_KERNEL and select() take
  bool (*supported)() noexcept;
  PreferredLayouts trit_layouts;
  PreferredLayouts int8_layouts;
  ScratchUse int8_scratch;  // of Int8MatmulArgs
  void (*trit_matmul)(const TritMatmulArgs&) noexcept;
  void (*int8_matmul)(const Int8MatmulArgs&) noexcept;
  void (*grouped_trit_matmul)(const GroupedTritMatmulArgs&) noexcept;
  void (*grouped_int8_matmul)(const GroupedInt8MatmulArgs&) noexcept;
  void (*ternarize)(const TernarizeArgs&) noexcept;
  void (*quantize_int8)(const QuantizeInt8Args&) noexcept;
  void (*field_count)(const FieldCountArgs&) noexcept;
  void (*pack_fields)(const PackFieldsArgs&) noexcept;
  void (*tile_cycles)(const TileCyclesArgs&) noexcept;
  void (*column_count)(const ColumnCountArgs&) noexcept;
  void (*digit_count)(const DigitCountArgs&) noexcept;
  void (*weighted_sum)(const WeightedSumArgs&) noexcept;
  void (*epilogue)(const EpilogueArgs&) noexcept;
  void (*dense_int8_matmul)(const DenseInt8MatmulArgs&) noexcept;
  void (*rms_norm)(const RmsNormArgs&) noexcept;
  void (*gate)(const GateArgs&) noexcept;
  void (*attend)(const AttendArgs&) noexcept;
  std::uint64_t (*fingerprint)(const void* data, std::size_t bytes) noexcept;  // fingerprint.hpp
};

// Every variant that this program has, portable first, fastest last (variants.json is the list).
[[nodiscard]] std::span<const KernelSet> all_kernels() noexcept;

// The set in use: the last supported one of the list, or what TFMBS_KERNEL names. Read once; an
// unknown or unsupported name in the environment is an error that select_status() reports (and
// active() is then portable).
[[nodiscard]] const KernelSet& active() noexcept;
Status select_status();
// Forces a set by name, for tests and benchmarks; thread-safe, takes effect for later calls.
// Errors: kInvalidArgument (unknown, or not supported by this CPU; says which are allowed).
Status select(std::string_view name);

}  // namespace tfmbs::kernels

#pragma GCC visibility pop
