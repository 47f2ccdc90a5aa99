// The scalar form with POPCNT: a field straddles words, and AVX2 has neither the permutation that
// would align fields nor a population count.
#include "field_count/scalar_field_count.hpp"
#include "operations.hpp"

namespace tfmbs::kernels::avx2 {

void field_count(const FieldCountArgs& args) noexcept { field_count_scalar(args); }

}  // namespace tfmbs::kernels::avx2
