// PT-5 for Python: on contiguous memory; python/pytfmbs/quantization/packing.py makes arrays and
// tensors of it.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "errors.hpp"
#include "tfmbs/format/limits.hpp"
#include "tfmbs/format/pt5.hpp"

namespace nb = nanobind;

namespace tfmbs::binding {

using TritArray = nb::ndarray<const std::int8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ByteArray = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using TritOut = nb::ndarray<std::int8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ByteOut = nb::ndarray<std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void bind_format(nb::module_& m) {
  m.attr("TRITS_PER_BYTE") = kTritsPerByte;
  m.attr("TRITS_PER_WORD") = kTritsPerWord;
  m.attr("MAX_DEPTH") = kMaxDepth;
  m.attr("MAX_OUTPUTS") = kMaxOutputs;
  m.def("pack_pt5_into", [](const TritArray& trits, const ByteOut& bytes) {
    check(pack_pt5({trits.data(), trits.size()}, {bytes.data(), bytes.size()}));
  });
  m.def("unpack_pt5_into", [](const ByteArray& bytes, const TritOut& trits) {
    check(unpack_pt5({bytes.data(), bytes.size()}, {trits.data(), trits.size()}));
  });
}

}  // namespace tfmbs::binding
