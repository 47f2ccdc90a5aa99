#include "arguments.hpp"

#include <nanobind/ndarray.h>

#include <cstring>
#include <span>

#include "errors.hpp"

namespace nb = nanobind;

namespace tfmbs::binding {
namespace {

std::string name_of_type(nb::handle value) {
  return nb::cast<std::string>(nb::str(value.type().attr("__name__")));
}

std::string text_of(nb::handle value) { return nb::cast<std::string>(nb::str(value)); }

nb::object index_of(nb::handle value, const char* name) {
  if (PyBool_Check(value.ptr()) || !PyIndex_Check(value.ptr())) {
    throw nb::type_error(
        (std::string(name) + " must be an integer, not " + name_of_type(value)).c_str());
  }
  PyObject* index = PyNumber_Index(value.ptr());
  if (index == nullptr) nb::raise_python_error();
  return nb::steal(index);
}

std::vector<std::uint32_t> words_of(std::span<const std::byte> bytes) {
  if (bytes.size() % 4 != 0) {
    throw CoreFailure({ErrorCode::kAddress, "data has " + std::to_string(bytes.size()) +
                                                " bytes; the fabric is written in words of 4"});
  }
  std::vector<std::uint32_t> words(bytes.size() / 4);
  for (std::size_t i = 0; i < words.size(); ++i) {  // little-endian, whatever the host is
    for (std::size_t b = 4; b-- > 0;) {
      words[i] = words[i] << 8 | std::to_integer<std::uint32_t>(bytes[4 * i + b]);
    }
  }
  return words;
}

// Releases a Python buffer at the end of its scope.
class Buffer {
 public:
  explicit Buffer(nb::handle object)
      : held_(PyObject_GetBuffer(object.ptr(), &view_, PyBUF_C_CONTIGUOUS) == 0) {
    if (!held_) nb::raise_python_error();
  }
  ~Buffer() { PyBuffer_Release(&view_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept {
    return {static_cast<const std::byte*>(view_.buf), static_cast<std::size_t>(view_.len)};
  }

 private:
  Py_buffer view_{};
  bool held_;
};

}  // namespace

std::uint64_t unsigned_argument(nb::handle value, const char* name, ErrorCode code,
                                std::uint64_t maximum) {
  const nb::object index = index_of(value, name);
  const std::uint64_t number = PyLong_AsUnsignedLongLong(index.ptr());
  const bool overflow = PyErr_Occurred() != nullptr;  // negative, or beyond 64 bits
  PyErr_Clear();
  if (overflow || number > maximum) {
    throw CoreFailure({code, std::string(name) + " is " + text_of(index) + "; allowed are 0 to " +
                                 std::to_string(maximum)});
  }
  return number;
}

std::vector<std::uint64_t> lane_mask_argument(nb::handle value) {
  if (value.is_none()) return {};
  nb::object rest = index_of(value, "lane_mask");
  if (nb::cast<bool>(rest < nb::int_(0))) {
    throw CoreFailure(
        {ErrorCode::kDescriptor, "lane_mask is " + text_of(rest) + "; bit l stands for lane l"});
  }
  const nb::int_ low_bits(~std::uint64_t{0});
  std::vector<std::uint64_t> words;
  while (nb::cast<bool>(rest > nb::int_(0)) || words.empty()) {
    words.push_back(nb::cast<std::uint64_t>(rest & low_bits));
    rest = rest >> nb::int_(64);
  }
  return words;
}

std::vector<std::uint32_t> words_argument(nb::handle value) {
  if (PyObject_CheckBuffer(value.ptr()) != 0) return words_of(Buffer(value).bytes());
  nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu> array;
  if (nb::try_cast(value, array)) {
    return words_of({static_cast<const std::byte*>(array.data()), array.nbytes()});
  }
  throw nb::type_error(
      ("data must be bytes-like, or a contiguous array or CPU tensor, not " + name_of_type(value))
          .c_str());
}

}  // namespace tfmbs::binding
