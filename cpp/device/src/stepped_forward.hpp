// A layer's forward on the machine itself: words are packed, moved and multiplied cycle by cycle.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tfmbs/fabric/device.hpp"
#include "tfmbs/format/activations.hpp"
#include "tfmbs/format/bit_planes.hpp"
#include "tfmbs/format/error.hpp"
#include "tfmbs/placement/schedule.hpp"

namespace tfmbs::device {

// Loads a resident layer's weights into Bank A, in one stage.
Status load_stepped(fabric::Device& device, const placement::Schedule& schedule,
                    BitPlaneView weights);

// Runs a forward; sums gets scale groups x samples x outputs exact products. The device counts as
// it steps.
Status forward_stepped(fabric::Device& device, const placement::Schedule& schedule,
                       BitPlaneView weights, const ActivationPlanes& activations,
                       std::span<std::int32_t> sums);

// The words of chunk c of a group, whose weights are the rows of `group`, and of one sample's
// activations, as the DMA moves them. `words` is resized.
void pack_group_words(const placement::Schedule& schedule, BitPlaneView group, std::uint64_t c,
                      std::vector<std::uint32_t>& words);
void pack_sample_words(const placement::Schedule& schedule, const ActivationPlanes& activations,
                       std::uint64_t c, std::size_t sample, std::vector<std::uint32_t>& words);

}  // namespace tfmbs::device
