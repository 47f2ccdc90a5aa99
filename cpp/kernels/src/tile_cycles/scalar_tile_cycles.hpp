// tile_cycles as loops over 32 elements of 16 bits, the shape that compilers make vectors of.
#pragma once

#include "scalar.hpp"

namespace tfmbs::kernels {
namespace {

// Steps of 32 elements between which a 16-bit count, at most 15 a step, cannot overflow.
inline constexpr std::size_t kCountSteps = 65535 / kFieldTrits;

inline std::uint16_t field_cycles(std::uint16_t bits) {
  std::uint16_t n = bits;
  n = static_cast<std::uint16_t>(n - (n >> 1 & 0x5555));
  n = static_cast<std::uint16_t>((n & 0x3333) + (n >> 2 & 0x3333));
  n = static_cast<std::uint16_t>((n + (n >> 4)) & 0x0F0F);
  n = static_cast<std::uint16_t>((n + (n >> 8)) & 0x1F);
  return n > 1 ? n : 1;
}

// counts[i] += the cycles of elements i, i + 32, ...; with kBroadcast a field serves 32 elements.
template <bool kBroadcast>
inline void count_steps(const std::uint16_t* fields, const std::uint16_t* occupancy,
                        std::size_t elements, std::uint32_t* counts) {
  const std::size_t steps = elements / kPassLanes;
  for (std::size_t done = 0; done < steps;) {
    const std::size_t end = steps - done < kCountSteps ? steps : done + kCountSteps;
    std::uint16_t narrow[kPassLanes] = {};
    for (std::size_t s = done; s < end; ++s) {
      const std::uint16_t* x = fields + (kBroadcast ? s : s * kPassLanes);
      const std::uint16_t* u = occupancy + s * kPassLanes;
      for (std::size_t i = 0; i < kPassLanes; ++i) {
        const auto bits = static_cast<std::uint16_t>(x[kBroadcast ? 0 : i] & u[i]);
        narrow[i] = static_cast<std::uint16_t>(narrow[i] + field_cycles(bits));
      }
    }
    for (std::size_t i = 0; i < kPassLanes; ++i) counts[i] += narrow[i];
    done = end;
  }
  for (std::size_t i = steps * kPassLanes; i < elements; ++i) {
    counts[i % kPassLanes] += field_cycles(static_cast<std::uint16_t>(fields[i] & occupancy[i]));
  }
}

inline void tile_cycles_scalar(const TileCyclesArgs& args) {
  const std::size_t lanes = args.lanes;
  const std::size_t copies = lanes == kPassLanes ? 1 : lanes;
  const std::size_t plane_stride = args.field_count * copies;
  for (std::size_t begin = 0, chunk = 0; begin < args.field_count;
       begin += args.chunk_fields, ++chunk) {
    const std::size_t left = args.field_count - begin;
    const std::size_t elements = (left < args.chunk_fields ? left : args.chunk_fields) * lanes;
    for (std::size_t r = 0; r < args.rows; ++r) {
      const std::uint16_t* row = args.fields + r * args.planes * plane_stride + begin * copies;
      std::uint32_t slowest[kPassLanes] = {};
      for (std::size_t slot = 0; slot < args.slots; ++slot) {
        const std::uint16_t* occupancy = args.occupancy + (slot * args.field_count + begin) * lanes;
        std::uint32_t counts[kPassLanes] = {};
        for (std::size_t p = 0; p < args.planes; ++p) {
          if (lanes == kPassLanes) {
            count_steps<true>(row + p * plane_stride, occupancy, elements, counts);
          } else {
            count_steps<false>(row + p * plane_stride, occupancy, elements, counts);
          }
        }
        for (std::size_t i = lanes; i < kPassLanes; ++i) counts[i % lanes] += counts[i];
        for (std::size_t i = 0; i < lanes; ++i) {
          args.slot_cycles[slot] += counts[i];
          if (counts[i] > slowest[i]) slowest[i] = counts[i];
        }
      }
      for (std::size_t i = 0; i < lanes; ++i) {
        args.slowest[i] += slowest[i];
        if (args.floors == nullptr) continue;
        const std::uint32_t floor = args.floors[chunk * lanes + i];
        args.stages[i] += slowest[i] > floor ? slowest[i] : floor;
      }
    }
  }
}

}  // namespace
}  // namespace tfmbs::kernels
