#include "tfmbs/device/spec_text.hpp"

#include <array>
#include <charconv>
#include <system_error>
#include <utility>

namespace tfmbs::device {
namespace {

constexpr std::string_view kHex = "0123456789ABCDEF";

bool is_plain(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

Result<std::string> percent_decode(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    unsigned value = 0;
    const char* first = text.data() + i + 1;
    if (i + 2 >= text.size() || std::from_chars(first, first + 2, value, 16).ptr != first + 2) {
      return Error{ErrorCode::kInvalidArgument,
                   "specification: '" + std::string(text) +
                       "' is not percent-encoded; expected two hexadecimal digits after '%'"};
    }
    out += static_cast<char>(value);
    i += 2;
  }
  return out;
}

template <typename Number>
Status read(std::string_view key, std::string_view text, Number& out) {
  const char* end = text.data() + text.size();
  // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): `end` says where it ends
  const auto read = std::from_chars(text.data(), end, out);
  if (read.ec == std::errc{} && read.ptr == end) return {};
  return Error{ErrorCode::kInvalidArgument, "specification: '" + std::string(key) + "' is '" +
                                                std::string(text) + "', not a number in range"};
}

}  // namespace

std::string percent_encode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (is_plain(c)) {
      out += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out += '%';
    out += kHex[byte >> 4];
    out += kHex[byte & 0xF];
  }
  return out;
}

std::string number_text(double value) {
  std::array<char, 32> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  return {buffer.data(), end.ptr};
}

Result<std::string_view> FieldReader::next(std::string_view key) {
  const auto end = rest_.find(';');
  const std::string_view field = rest_.substr(0, end);
  if (field.size() <= key.size() || !field.starts_with(key) || field[key.size()] != '=') {
    return Error{ErrorCode::kInvalidArgument, "specification: expected '" + std::string(key) +
                                                  "=...' but found '" + std::string(field) + "'"};
  }
  rest_ = end == std::string_view::npos ? std::string_view{} : rest_.substr(end + 1);
  return field.substr(key.size() + 1);
}

Status FieldReader::read_number(std::string_view key, std::string_view text, std::uint64_t& out) {
  return read(key, text, out);
}
Status FieldReader::read_number(std::string_view key, std::string_view text, double& out) {
  return read(key, text, out);
}

Status FieldReader::text(std::string_view key, std::string& out) {
  const auto field = next(key);
  if (!field) return field.error();
  auto decoded = percent_decode(field.value());
  if (!decoded) return std::move(decoded).error();
  out = std::move(decoded).value();
  return {};
}

}  // namespace tfmbs::device
