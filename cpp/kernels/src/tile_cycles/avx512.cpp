// 32 fields at a time: an AND, a population count, a maximum with 1 and an addition. A block of 32
// passes broadcasts the activations' field to its lanes; fewer passes take several fields side by
// side, whose counts are folded together at a chunk's end.
#include <immintrin.h>

#include "operations.hpp"
#include "scalar.hpp"

namespace tfmbs::kernels::avx512 {
namespace {

constexpr std::size_t kMaxSlots = 64;
// Steps between which a 16-bit count, at most 15 a step, cannot overflow.
constexpr std::size_t kCountSteps = 65535 / kFieldTrits;

struct Wide {  // 32 counts
  __m512i low;
  __m512i high;
};

inline __m512i cycles_of(__m512i fields) {
  return _mm512_max_epu16(_mm512_popcnt_epi16(fields), _mm512_set1_epi16(1));
}

inline Wide widen(__m512i counts) {
  return {_mm512_cvtepu16_epi32(_mm512_castsi512_si256(counts)),
          _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(counts, 1))};
}

// What one row of a chunk reads.
struct Chunk {
  const std::uint16_t* fields;
  std::size_t plane_stride;
  const std::uint16_t* occupancy;  // of the first slot
  std::size_t slot_stride;
  std::size_t planes;
  std::size_t elements;
};

inline bool all_zero(const std::uint16_t* fields, std::size_t count) {
  __m512i any = _mm512_setzero_si512();
  for (std::size_t i = 0; i < count; i += 32) {
    const __mmask32 inside = count - i < 32 ? (__mmask32{1} << (count - i)) - 1 : ~__mmask32{0};
    any = _mm512_or_si512(any, _mm512_maskz_loadu_epi16(inside, fields + i));
  }
  return _mm512_test_epi16_mask(any, any) == 0;
}

// Counts of kSlots slots, all planes together.
template <bool kBroadcast, std::size_t kSlots>
inline __attribute__((always_inline)) void count(const Chunk& chunk, Wide* counts) {
  const std::size_t steps = chunk.elements / kPassLanes;
  const std::size_t rest = chunk.elements % kPassLanes;
  __m512i narrow[kSlots];
  for (std::size_t i = 0; i < kSlots; ++i) {
    narrow[i] = _mm512_setzero_si512();
    counts[i] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  }
  const auto flush = [&] {
    for (std::size_t i = 0; i < kSlots; ++i) {
      const Wide more = widen(narrow[i]);
      counts[i].low = _mm512_add_epi32(counts[i].low, more.low);
      counts[i].high = _mm512_add_epi32(counts[i].high, more.high);
      narrow[i] = _mm512_setzero_si512();
    }
  };
  std::size_t room = kCountSteps;
  std::size_t idle = 0;
  for (std::size_t p = 0; p < chunk.planes; ++p) {
    const std::uint16_t* fields = chunk.fields + p * chunk.plane_stride;
    // The most significant plane of int8 is mostly zero: a cycle a field, whatever is occupied.
    if (kBroadcast && chunk.planes > 1 && all_zero(fields, steps)) {
      idle += steps;
      continue;
    }
    for (std::size_t done = 0; done < steps;) {
      if (room == 0) {
        flush();
        room = kCountSteps;
      }
      const std::size_t end = steps - done < room ? steps : done + room;
      room -= end - done;
      for (std::size_t s = done; s < end; ++s) {
        const __m512i x = kBroadcast ? _mm512_set1_epi16(static_cast<short>(fields[s]))
                                     : _mm512_loadu_si512(fields + s * kPassLanes);
        for (std::size_t i = 0; i < kSlots; ++i) {
          const std::uint16_t* u = chunk.occupancy + i * chunk.slot_stride + s * kPassLanes;
          narrow[i] =
              _mm512_add_epi16(narrow[i], cycles_of(_mm512_and_si512(x, _mm512_loadu_si512(u))));
        }
      }
      done = end;
    }
    if (kBroadcast || rest == 0) continue;
    if (room == 0) {
      flush();
      room = kCountSteps;
    }
    --room;
    const __mmask32 inside = (__mmask32{1} << rest) - 1;
    const __m512i x = _mm512_maskz_loadu_epi16(inside, fields + steps * kPassLanes);
    for (std::size_t i = 0; i < kSlots; ++i) {
      const std::uint16_t* u = chunk.occupancy + i * chunk.slot_stride + steps * kPassLanes;
      const __m512i bits = _mm512_and_si512(x, _mm512_maskz_loadu_epi16(inside, u));
      narrow[i] = _mm512_mask_add_epi16(narrow[i], inside, narrow[i], cycles_of(bits));
    }
  }
  flush();
  if (idle == 0) return;
  const __m512i more = _mm512_set1_epi32(static_cast<int>(idle));
  for (std::size_t i = 0; i < kSlots; ++i) {
    counts[i] = {_mm512_add_epi32(counts[i].low, more), _mm512_add_epi32(counts[i].high, more)};
  }
}

// Adds up the counts whose places are equal modulo `lanes` (below 32); every place gets the sum.
inline __m512i fold(const Wide& counts, std::size_t lanes) {
  __m512i sum = _mm512_add_epi32(counts.low, counts.high);
  if (lanes <= 8) sum = _mm512_add_epi32(sum, _mm512_shuffle_i64x2(sum, sum, 0x4E));
  if (lanes <= 4) sum = _mm512_add_epi32(sum, _mm512_shuffle_i64x2(sum, sum, 0xB1));
  if (lanes <= 2) sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, _MM_PERM_BADC));
  if (lanes == 1) sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, _MM_PERM_CDAB));
  return sum;
}

// Sums of one call; kMaxTileFields keeps them in 32 bits. Stages may be longer.
struct Sums {
  __m512i slots[kMaxSlots];
  Wide slowest;
  __m512i stages[4];
};

inline void add_wide(__m512i* sums, __m512i values) {
  sums[0] = _mm512_add_epi64(sums[0], _mm512_cvtepu32_epi64(_mm512_castsi512_si256(values)));
  sums[1] = _mm512_add_epi64(sums[1], _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(values, 1)));
}

// Slots first ... first + kSlots - 1 of one row and chunk.
template <bool kBroadcast, std::size_t kSlots>
inline __attribute__((always_inline)) void add_slots(const Chunk& chunk, std::size_t lanes,
                                                     __m512i* slot_sums, Wide& slowest) {
  Wide counts[kSlots];
  count<kBroadcast, kSlots>(chunk, counts);
  for (std::size_t i = 0; i < kSlots; ++i) {
    if (kBroadcast) {
      slowest.low = _mm512_max_epu32(slowest.low, counts[i].low);
      slowest.high = _mm512_max_epu32(slowest.high, counts[i].high);
      slot_sums[i] =
          _mm512_add_epi32(slot_sums[i], _mm512_add_epi32(counts[i].low, counts[i].high));
    } else {
      const __m512i folded = fold(counts[i], lanes);
      slowest.low = _mm512_max_epu32(slowest.low, folded);
      slot_sums[i] = _mm512_add_epi32(slot_sums[i], folded);
    }
  }
}

template <bool kBroadcast>
void count_tiles(const TileCyclesArgs& args) {
  const std::size_t lanes = args.lanes;
  const std::size_t copies = kBroadcast ? 1 : lanes;
  const __m512i zero = _mm512_setzero_si512();
  const auto low_mask = static_cast<__mmask16>(lanes >= 16 ? 0xFFFF : (1U << lanes) - 1);
  Sums sums;
  for (std::size_t i = 0; i < args.slots; ++i) sums.slots[i] = zero;
  sums.slowest = {zero, zero};
  for (auto& sum : sums.stages) sum = zero;

  Chunk chunk{.fields = nullptr,
              .plane_stride = args.field_count * copies,
              .occupancy = nullptr,
              .slot_stride = args.field_count * lanes,
              .planes = args.planes,
              .elements = 0};
  for (std::size_t begin = 0, c = 0; begin < args.field_count; begin += args.chunk_fields, ++c) {
    const std::size_t left = args.field_count - begin;
    chunk.elements = (left < args.chunk_fields ? left : args.chunk_fields) * lanes;
    Wide floor{zero, zero};
    if (args.floors != nullptr) {
      const std::uint32_t* floors = args.floors + c * lanes;
      floor.low = _mm512_maskz_loadu_epi32(low_mask, floors);
      if (kBroadcast) floor.high = _mm512_loadu_si512(floors + 16);
    }
    for (std::size_t r = 0; r < args.rows; ++r) {
      chunk.fields = args.fields + r * args.planes * chunk.plane_stride + begin * copies;
      Wide slowest{zero, zero};
      std::size_t slot = 0;
      const auto at = [&] {
        chunk.occupancy = args.occupancy + slot * chunk.slot_stride + begin * lanes;
        return sums.slots + slot;
      };
      for (; slot + 4 <= args.slots; slot += 4) {
        add_slots<kBroadcast, 4>(chunk, lanes, at(), slowest);
      }
      for (; slot + 2 <= args.slots; slot += 2) {
        add_slots<kBroadcast, 2>(chunk, lanes, at(), slowest);
      }
      if (slot < args.slots) add_slots<kBroadcast, 1>(chunk, lanes, at(), slowest);
      sums.slowest.low = _mm512_add_epi32(sums.slowest.low, slowest.low);
      add_wide(sums.stages, _mm512_max_epu32(slowest.low, floor.low));
      if (kBroadcast) {
        sums.slowest.high = _mm512_add_epi32(sums.slowest.high, slowest.high);
        add_wide(sums.stages + 2, _mm512_max_epu32(slowest.high, floor.high));
      }
    }
  }

  const std::size_t places = lanes < 16 ? lanes : 16;
  for (std::size_t slot = 0; slot < args.slots; ++slot) {
    alignas(64) std::uint32_t cycles[16];
    _mm512_store_si512(cycles, sums.slots[slot]);
    for (std::size_t i = 0; i < places; ++i) args.slot_cycles[slot] += cycles[i];
  }
  alignas(64) std::uint32_t slowest[kPassLanes];
  alignas(64) std::uint64_t stages[kPassLanes];
  _mm512_store_si512(slowest, sums.slowest.low);
  _mm512_store_si512(slowest + 16, sums.slowest.high);
  for (std::size_t i = 0; i < 4; ++i) _mm512_store_si512(stages + 8 * i, sums.stages[i]);
  for (std::size_t i = 0; i < lanes; ++i) args.slowest[i] += slowest[i];
  if (args.floors == nullptr) return;
  for (std::size_t i = 0; i < lanes; ++i) args.stages[i] += stages[i];
}

}  // namespace

void tile_cycles(const TileCyclesArgs& args) noexcept {
  if (args.lanes == kPassLanes) {
    count_tiles<true>(args);
  } else {
    count_tiles<false>(args);
  }
}

}  // namespace tfmbs::kernels::avx512
