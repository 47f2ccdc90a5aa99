// PT-5 and the codes of checkpoints for Python: on contiguous memory, which
// python/pytfmbs/quantization/packing.py and python/pytfmbs/checkpoints/codes.py make of arrays and
// tensors.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include "errors.hpp"
#include "tfmbs/format/checkpoint_codes.hpp"
#include "tfmbs/format/large_memory.hpp"
#include "tfmbs/format/limits.hpp"
#include "tfmbs/format/pt5.hpp"

namespace nb = nanobind;

namespace tfmbs::binding {

using TritArray = nb::ndarray<const std::int8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ByteArray = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using TritOut = nb::ndarray<std::int8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ByteOut = nb::ndarray<std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

using ScaleArray = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ScaleOut = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ByteMatrix = nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using TritMatrix = nb::ndarray<const std::int8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using ByteMatrixOut = nb::ndarray<std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using TritMatrixOut = nb::ndarray<std::int8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// Calls without the interpreter's lock.
template <typename Call>
void check_released(Call call) {
  check([&]() -> Status {
    const nb::gil_scoped_release release;
    return call();
  }());
}

void bind_format(nb::module_& m) {
  m.attr("TRITS_PER_BYTE") = kTritsPerByte;
  m.attr("TRITS_PER_WORD") = kTritsPerWord;
  m.attr("BLOCK_TRITS") = kBlockTrits;
  m.attr("MAX_DEPTH") = kMaxDepth;
  m.attr("MAX_OUTPUTS") = kMaxOutputs;
  m.def("forget_file_pages", [](std::uintptr_t address, std::size_t bytes) {
    large_memory::forget_file_pages(reinterpret_cast<void*>(address), bytes);
  });
  m.def("pack_pt5_into", [](const TritArray& trits, const ByteOut& bytes) {
    check(pack_pt5({trits.data(), trits.size()}, {bytes.data(), bytes.size()}));
  });
  m.def("unpack_pt5_into", [](const ByteArray& bytes, const TritOut& trits) {
    check(unpack_pt5({bytes.data(), bytes.size()}, {trits.data(), trits.size()}));
  });
  m.def("unpack_strided_codes_into", [](const ByteMatrix& packed, const TritMatrixOut& trits) {
    check_released([&] {
      return unpack_strided_codes({packed.data(), packed.size()}, trits.shape(0), packed.shape(1),
                                  {trits.data(), trits.size()});
    });
  });
  m.def("pack_strided_codes_into", [](const TritMatrix& trits, const ByteMatrixOut& packed) {
    check_released([&] {
      return pack_strided_codes({trits.data(), trits.size()}, trits.shape(0), trits.shape(1),
                                {packed.data(), packed.size()});
    });
  });
  m.def("ternary_block_bytes",
        [](const std::string& kind) { return block_bytes(check(parse_ternary_blocks(kind))); });
  m.def("ternary_block_trits",
        [](const std::string& kind) { return block_trits(check(parse_ternary_blocks(kind))); });
  m.def("unpack_interleaved_codes_into",
        [](const ByteArray& bytes, std::size_t block, const TritOut& trits) {
          check_released([&] {
            return unpack_interleaved_codes({bytes.data(), bytes.size()}, block,
                                            {trits.data(), trits.size()});
          });
        });
  m.def("unpack_ternary_blocks_into", [](const std::string& kind, const ByteArray& bytes,
                                         const TritOut& trits, const ScaleOut& scales) {
    const TernaryBlocks blocks = check(parse_ternary_blocks(kind));
    check_released([&] {
      return unpack_ternary_blocks(blocks, {bytes.data(), bytes.size()},
                                   {trits.data(), trits.size()}, {scales.data(), scales.size()});
    });
  });
  m.def("pack_ternary_blocks_into", [](const std::string& kind, const TritArray& trits,
                                       const ScaleArray& scales, const ByteOut& bytes) {
    const TernaryBlocks blocks = check(parse_ternary_blocks(kind));
    check_released([&] {
      return pack_ternary_blocks(blocks, {trits.data(), trits.size()},
                                 {scales.data(), scales.size()}, {bytes.data(), bytes.size()});
    });
  });
}

}  // namespace tfmbs::binding
