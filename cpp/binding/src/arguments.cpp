#include "arguments.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <span>
#include <string_view>

#include "errors.hpp"
#include "tfmbs/format/geometry.hpp"

namespace nb = nanobind;

namespace tfmbs::binding {
namespace {

std::string name_of_type(nb::handle value) {
  return nb::cast<std::string>(nb::str(value.type().attr("__name__")));
}

nb::object index_of(nb::handle value, const char* name) {
  if (PyBool_Check(value.ptr()) || !PyIndex_Check(value.ptr())) {
    throw nb::type_error(
        (std::string(name) + " must be an integer, not " + name_of_type(value)).c_str());
  }
  nb::object index = nb::steal(PyNumber_Index(value.ptr()));
  if (!index.is_valid()) nb::raise_python_error();
  return index;
}

// Python refuses to write very long integers in decimal.
std::string text_of(nb::handle integer) {
  constexpr std::size_t kMaxBits = 256;
  if (const auto bits = nb::cast<std::size_t>(integer.attr("bit_length")()); bits > kMaxBits) {
    return "an integer of " + std::to_string(bits) + " bits";
  }
  return nb::cast<std::string>(nb::str(integer));
}

// The format of Python's struct module for integers and plain bytes; none is plain bytes.
bool is_integer_format(const char* format) noexcept {
  if (format == nullptr) return true;
  std::string_view code(format);
  if (!code.empty() && std::string_view("@=<>!").find(code.front()) != code.npos) {
    code.remove_prefix(1);
  }
  return code.size() == 1 && std::string_view("cbBhHiIlLqQnN").find(code.front()) != code.npos;
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
      : held_(PyObject_GetBuffer(object.ptr(), &view_, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) == 0) {
    if (!held_) nb::raise_python_error();
  }
  ~Buffer() { PyBuffer_Release(&view_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  [[nodiscard]] const char* format() const noexcept { return view_.format; }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept {
    return {static_cast<const std::byte*>(view_.buf), static_cast<std::size_t>(view_.len)};
  }

 private:
  Py_buffer view_{};
  bool held_;
};

}  // namespace

std::uint64_t unsigned_argument(nb::handle value, const char* name, ErrorCode code,
                                std::uint64_t maximum, std::uint64_t minimum) {
  const nb::object index = index_of(value, name);
  const std::uint64_t number = PyLong_AsUnsignedLongLong(index.ptr());
  const bool overflow = PyErr_Occurred() != nullptr;  // negative, or beyond 64 bits
  PyErr_Clear();
  if (overflow || number < minimum || number > maximum) {
    throw CoreFailure({code, std::string(name) + " is " + text_of(index) + "; allowed are " +
                                 std::to_string(minimum) + " to " + std::to_string(maximum)});
  }
  return number;
}

std::int64_t tile_argument(nb::handle value) {
  int overflow = 0;
  const long long tile = PyLong_AsLongLongAndOverflow(index_of(value, "tile").ptr(), &overflow);
  if (overflow == 0) return tile;
  using Limits = std::numeric_limits<std::int64_t>;
  return overflow < 0 ? Limits::min() : Limits::max();
}

std::vector<std::uint64_t> lane_mask_argument(nb::handle value) {
  if (value.is_none()) return {};
  const nb::object mask = index_of(value, "lane_mask");
  const auto bits = nb::cast<std::size_t>(mask.attr("bit_length")());
  // A longer mask names lanes that no device has, and may be long beyond all measure.
  const bool negative = PyObject_RichCompareBool(mask.ptr(), nb::int_(0).ptr(), Py_LT) != 0;
  if (negative || bits > Geometry::kMaxLanes) {
    throw CoreFailure(
        {ErrorCode::kDescriptor, "lane_mask is " + text_of(mask) +
                                     "; bit l stands for lane l, and a device has at most " +
                                     std::to_string(Geometry::kMaxLanes) + " lanes"});
  }
  std::vector<std::uint64_t> words(bits / 64 + 1);
  nb::object rest = mask;
  for (std::uint64_t& word : words) {
    word = nb::cast<std::uint64_t>(rest & nb::int_(~std::uint64_t{0}));
    rest = rest >> nb::int_(64);
  }
  return words;
}

std::vector<std::uint32_t> words_argument(nb::handle value) {
  if (PyObject_CheckBuffer(value.ptr()) != 0) {
    const Buffer buffer(value);
    if (!is_integer_format(buffer.format())) {
      throw nb::type_error(
          (std::string("data must be bytes or integers, not of format '") + buffer.format() + "'")
              .c_str());
    }
    return words_of(buffer.bytes());
  }
  nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu> array;
  if (nb::try_cast(value, array, false)) {
    using Code = nb::dlpack::dtype_code;
    const auto code = static_cast<Code>(array.dtype().code);
    if (code != Code::Int && code != Code::UInt) {
      throw nb::type_error("data must be bytes or integers, not of a float, complex or bool dtype");
    }
    return words_of({static_cast<const std::byte*>(array.data()), array.nbytes()});
  }
  throw nb::type_error(
      ("data must be bytes-like, or a contiguous array or CPU tensor of integers, not " +
       name_of_type(value))
          .c_str());
}

}  // namespace tfmbs::binding
