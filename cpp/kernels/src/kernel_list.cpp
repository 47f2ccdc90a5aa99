// The list: dispatch, tests and benchmarks all derive from it. A new set is one entry, slowest
// first; where an instruction set gives an operation nothing, its entry may name another set's.
#include "cpu.hpp"
#include "operations.hpp"
#include "tfmbs/kernels/fingerprint.hpp"

namespace tfmbs::kernels {
namespace {

constexpr KernelSet kKernels[] = {
    {.name = "portable",
     .supported = cpu_always,
     .trit_layouts = {WeightLayout::kTritQuads, WeightLayout::kTritFives},
     .int8_layouts = {WeightLayout::kInt8Quads, WeightLayout::kInt8Fives},
     .int8_scratch = {},
     .trit_matmul = portable::trit_matmul,
     .int8_matmul = portable::int8_matmul,
     .ternarize = portable::ternarize,
     .quantize_int8 = portable::quantize_int8,
     .field_count = portable::field_count,
     .pack_fields = portable::pack_fields,
     .tile_cycles = portable::tile_cycles,
     .column_count = portable::column_count,
     .digit_count = portable::digit_count,
     .weighted_sum = portable::weighted_sum,
     .epilogue = portable::epilogue,
     .fingerprint = portable::fingerprint},
#ifdef TFMBS_KERNELS_X86
    {.name = "avx2",
     .supported = cpu_has_avx2,
     .trit_layouts = {WeightLayout::kTritPairs, WeightLayout::kTritPairs},
     .int8_layouts = {WeightLayout::kInt8Quads, WeightLayout::kInt8Quads},
     .int8_scratch = {},
     .trit_matmul = avx2::trit_matmul,
     .int8_matmul = avx2::int8_matmul,
     .ternarize = avx2::ternarize,
     .quantize_int8 = avx2::quantize_int8,
     .field_count = avx2::field_count,
     .pack_fields = avx2::pack_fields,
     .tile_cycles = avx2::tile_cycles,
     .column_count = avx2::column_count,
     .digit_count = avx2::digit_count,
     .weighted_sum = avx2::weighted_sum,
     .epilogue = avx2::epilogue,
     .fingerprint = portable::fingerprint},
    {.name = "avxvnni",
     .supported = cpu_has_avxvnni,
     .trit_layouts = {WeightLayout::kTritPairs, WeightLayout::kTritPairs},
     .int8_layouts = {WeightLayout::kInt8Quads, WeightLayout::kInt8Quads},
     .int8_scratch = {},
     .trit_matmul = avx2::trit_matmul,
     .int8_matmul = avxvnni::int8_matmul,
     .ternarize = avx2::ternarize,
     .quantize_int8 = avx2::quantize_int8,
     .field_count = avx2::field_count,
     .pack_fields = avx2::pack_fields,
     .tile_cycles = avx2::tile_cycles,
     .column_count = avx2::column_count,
     .digit_count = avx2::digit_count,
     .weighted_sum = avx2::weighted_sum,
     .epilogue = avx2::epilogue,
     .fingerprint = portable::fingerprint},
    {.name = "avx512",
     .supported = cpu_has_avx512,
     .trit_layouts = {WeightLayout::kTritQuads, WeightLayout::kTritFives},
     .int8_layouts = {WeightLayout::kInt8Quads, WeightLayout::kInt8Fives},
     .int8_scratch = avx512::kInt8Scratch,
     .trit_matmul = avx512::trit_matmul,
     .int8_matmul = avx512::int8_matmul,
     .ternarize = avx512::ternarize,
     .quantize_int8 = avx512::quantize_int8,
     .field_count = avx512::field_count,
     .pack_fields = avx512::pack_fields,
     .tile_cycles = avx512::tile_cycles,
     .column_count = avx512::column_count,
     .digit_count = avx512::digit_count,
     .weighted_sum = avx512::weighted_sum,
     .epilogue = avx512::epilogue,
     .fingerprint = avx512::fingerprint},
#endif
#ifdef TFMBS_KERNELS_ARM64
    {.name = "neon",
     .supported = cpu_always,
     .trit_layouts = {WeightLayout::kTritPairs, WeightLayout::kTritPairs},
     .int8_layouts = {WeightLayout::kInt8Quads, WeightLayout::kInt8Quads},
     .int8_scratch = {},
     .trit_matmul = neon::trit_matmul,
     .int8_matmul = neon::int8_matmul,
     .ternarize = neon::ternarize,
     .quantize_int8 = neon::quantize_int8,
     .field_count = portable::field_count,
     .pack_fields = portable::pack_fields,
     .tile_cycles = portable::tile_cycles,
     .column_count = portable::column_count,
     .digit_count = portable::digit_count,
     .weighted_sum = portable::weighted_sum,
     .epilogue = neon::epilogue,
     .fingerprint = portable::fingerprint},
    {.name = "neon_dot",
     .supported = cpu_has_dot_product,
     .trit_layouts = {WeightLayout::kTritPairs, WeightLayout::kTritPairs},
     .int8_layouts = {WeightLayout::kInt8Quads, WeightLayout::kInt8Quads},
     .int8_scratch = {},
     .trit_matmul = neon::trit_matmul,
     .int8_matmul = neon_dot::int8_matmul,
     .ternarize = neon::ternarize,
     .quantize_int8 = neon::quantize_int8,
     .field_count = portable::field_count,
     .pack_fields = portable::pack_fields,
     .tile_cycles = portable::tile_cycles,
     .column_count = portable::column_count,
     .digit_count = portable::digit_count,
     .weighted_sum = portable::weighted_sum,
     .epilogue = neon::epilogue,
     .fingerprint = portable::fingerprint},
#endif
};

}  // namespace

std::span<const KernelSet> all_kernels() noexcept { return kKernels; }

std::uint64_t fingerprint(const void* data, std::size_t bytes) noexcept {
  return active().fingerprint(data, bytes);
}

}  // namespace tfmbs::kernels
