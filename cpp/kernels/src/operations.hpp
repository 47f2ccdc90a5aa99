// The implementations that kernel_list.cpp lists: one function an operation and instruction set.
#pragma once

#include "tfmbs/kernels/kernels.hpp"

namespace tfmbs::kernels {

namespace portable {
void trit_matmul(const TritMatmulArgs& args) noexcept;
void int8_matmul(const Int8MatmulArgs& args) noexcept;
void grouped_trit_matmul(const GroupedTritMatmulArgs& args) noexcept;
void grouped_int8_matmul(const GroupedInt8MatmulArgs& args) noexcept;
void ternarize(const TernarizeArgs& args) noexcept;
void quantize_int8(const QuantizeInt8Args& args) noexcept;
void field_count(const FieldCountArgs& args) noexcept;
void pack_fields(const PackFieldsArgs& args) noexcept;
void tile_cycles(const TileCyclesArgs& args) noexcept;
void column_count(const ColumnCountArgs& args) noexcept;
void digit_count(const DigitCountArgs& args) noexcept;
void weighted_sum(const WeightedSumArgs& args) noexcept;
void epilogue(const EpilogueArgs& args) noexcept;
std::uint64_t fingerprint(const void* data, std::size_t bytes) noexcept;
}  // namespace portable

namespace avx2 {
void trit_matmul(const TritMatmulArgs& args) noexcept;
void int8_matmul(const Int8MatmulArgs& args) noexcept;
void grouped_trit_matmul(const GroupedTritMatmulArgs& args) noexcept;
void grouped_int8_matmul(const GroupedInt8MatmulArgs& args) noexcept;
void ternarize(const TernarizeArgs& args) noexcept;
void quantize_int8(const QuantizeInt8Args& args) noexcept;
void field_count(const FieldCountArgs& args) noexcept;
void pack_fields(const PackFieldsArgs& args) noexcept;
void tile_cycles(const TileCyclesArgs& args) noexcept;
void column_count(const ColumnCountArgs& args) noexcept;
void digit_count(const DigitCountArgs& args) noexcept;
void weighted_sum(const WeightedSumArgs& args) noexcept;
void epilogue(const EpilogueArgs& args) noexcept;
}  // namespace avx2

namespace avxvnni {
void int8_matmul(const Int8MatmulArgs& args) noexcept;
void grouped_int8_matmul(const GroupedInt8MatmulArgs& args) noexcept;
}  // namespace avxvnni

namespace avx512 {
// Below these rows and outputs, making tables costs what it saves.
inline constexpr ScratchUse kInt8Scratch{.bytes = 414976, .least_rows = 16, .least_outputs = 256};
void trit_matmul(const TritMatmulArgs& args) noexcept;
void int8_matmul(const Int8MatmulArgs& args) noexcept;
void grouped_trit_matmul(const GroupedTritMatmulArgs& args) noexcept;
void grouped_int8_matmul(const GroupedInt8MatmulArgs& args) noexcept;
void ternarize(const TernarizeArgs& args) noexcept;
void quantize_int8(const QuantizeInt8Args& args) noexcept;
void field_count(const FieldCountArgs& args) noexcept;
void pack_fields(const PackFieldsArgs& args) noexcept;
void tile_cycles(const TileCyclesArgs& args) noexcept;
void column_count(const ColumnCountArgs& args) noexcept;
void digit_count(const DigitCountArgs& args) noexcept;
void weighted_sum(const WeightedSumArgs& args) noexcept;
void epilogue(const EpilogueArgs& args) noexcept;
std::uint64_t fingerprint(const void* data, std::size_t bytes) noexcept;
}  // namespace avx512

namespace neon {
void trit_matmul(const TritMatmulArgs& args) noexcept;
void int8_matmul(const Int8MatmulArgs& args) noexcept;
void grouped_trit_matmul(const GroupedTritMatmulArgs& args) noexcept;
void grouped_int8_matmul(const GroupedInt8MatmulArgs& args) noexcept;
void ternarize(const TernarizeArgs& args) noexcept;
void quantize_int8(const QuantizeInt8Args& args) noexcept;
void epilogue(const EpilogueArgs& args) noexcept;
}  // namespace neon

namespace neon_dot {
void int8_matmul(const Int8MatmulArgs& args) noexcept;
void grouped_int8_matmul(const GroupedInt8MatmulArgs& args) noexcept;
}  // namespace neon_dot

}  // namespace tfmbs::kernels
