#include "operations.hpp"
#include "pack_fields/scalar_pack_fields.hpp"

namespace tfmbs::kernels::portable {

void pack_fields(const PackFieldsArgs& args) noexcept { pack_fields_scalar(args); }

}  // namespace tfmbs::kernels::portable
