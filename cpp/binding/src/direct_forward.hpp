// A layer's forward without torch's dispatcher, which takes longer than a small product and slows
// the call beside a large one: tensors are read and made through DLPack's C functions, and work is
// shared by the process's executor.
#pragma once

#include <nanobind/nanobind.h>

#include "tfmbs/runtime/layer.hpp"

namespace tfmbs::binding {

// Names the types whose tensors are taken, and with them the table that reads them (a capsule, the
// attribute `__dlpack_c_exchange_api__`); and the functions to ask who would see an op that is
// dispatched (python/pytfmbs/ops/observers.py). Gives false where no table of a known version is.
bool use_tensors(nanobind::handle tensor_type, nanobind::handle parameter_type,
                 const nanobind::tuple& questions, nanobind::handle forward_mode,
                 nanobind::handle forward_mode_level);

// The output, or None, with nothing done and no error set, where only the op will do: somebody
// would see it, weights to be packed, tensors of another type or kind of memory, of which storage
// was freed or shrunk, bad input. Precondition: eval mode.
nanobind::object direct_forward(runtime::Layer& layer, nanobind::handle input,
                                nanobind::handle weight, nanobind::handle bias, bool relu);

}  // namespace tfmbs::binding
