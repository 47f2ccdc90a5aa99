#include "field_count/scalar_field_count.hpp"
#include "operations.hpp"

namespace tfmbs::kernels::portable {

void field_count(const FieldCountArgs& args) noexcept { field_count_scalar(args); }

}  // namespace tfmbs::kernels::portable
