// The scalar form: fields straddle words, and AVX2 has no permutation that would align them.
#include "operations.hpp"
#include "pack_fields/scalar_pack_fields.hpp"

namespace tfmbs::kernels::avx2 {

void pack_fields(const PackFieldsArgs& args) noexcept { pack_fields_scalar(args); }

}  // namespace tfmbs::kernels::avx2
