// gate in lanes: compiled once an instruction set.
#pragma once

#include "float_lanes.hpp"

namespace tfmbs::kernels {
namespace {

template <GateFunction kFunction>
[[gnu::always_inline]] inline Lanes gate_of(Lanes x) {
  if constexpr (kFunction == GateFunction::kSilu) {
    return x / (exp_lanes(-x) + 1.0F);
  } else {
    // What is not above 0 becomes 0, but a NaN stays.
    const IntLanes dropped = x <= 0.0F;
    const Lanes kept = bits_as<Lanes>(bits_as<IntLanes>(x) & ~dropped);
    return kept * kept;
  }
}

template <FloatType kType, GateFunction kFunction>
inline void gate_as(const GateArgs& args) {
  const std::size_t whole = args.size / kFloatLanes * kFloatLanes;
  for (std::size_t i = 0; i < whole; i += kFloatLanes) {
    // relu is exact, and its square is rounded: one rounding, as of SiLU.
    const Lanes gate = rounded_to<kType>(gate_of<kFunction>(load_lanes<kType>(args.gate, i)));
    store_lanes<kType>(args.out, i, gate * load_lanes<kType>(args.up, i));
  }
  if (const std::size_t rest = args.size - whole; rest != 0) {
    const Lanes gate =
        rounded_to<kType>(gate_of<kFunction>(load_rest<kType>(args.gate, whole, rest)));
    store_rest<kType>(args.out, whole, rest, gate * load_rest<kType>(args.up, whole, rest));
  }
}

template <FloatType kType>
inline void gate_typed(const GateArgs& args) {
  args.function == GateFunction::kSilu ? gate_as<kType, GateFunction::kSilu>(args)
                                       : gate_as<kType, GateFunction::kSquaredRelu>(args);
}

inline void gate_in_lanes(const GateArgs& args) {
  args.type == FloatType::kFloat32 ? gate_typed<FloatType::kFloat32>(args)
                                   : gate_typed<FloatType::kBFloat16>(args);
}

}  // namespace
}  // namespace tfmbs::kernels
