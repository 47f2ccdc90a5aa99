#include "gate/gate.hpp"
#include "operations.hpp"

namespace tfmbs::kernels::portable {

void gate(const GateArgs& args) noexcept { gate_in_lanes(args); }

}  // namespace tfmbs::kernels::portable
