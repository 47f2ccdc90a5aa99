// Specifications as text: "key=value;key=value", keys in a fixed order, texts percent-encoded.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "tfmbs/format/error.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::device {

[[nodiscard]] std::string percent_encode(std::string_view text);
// The shortest text that reads back as the same value.
[[nodiscard]] std::string number_text(double value);

// Reads fields that must come in a known order. Errors: kInvalidArgument, with the field.
class FieldReader {
 public:
  explicit FieldReader(std::string_view text) : rest_(text) {}

  Result<std::string_view> next(std::string_view key);

  template <typename Number>
  Status number(std::string_view key, Number& out) {
    const auto text = next(key);
    if (!text) return text.error();
    return read_number(key, text.value(), out);
  }

  // A number, or the word that stands for none.
  template <typename Number>
  Status optional_number(std::string_view key, std::string_view none, std::optional<Number>& out) {
    const auto text = next(key);
    if (!text) return text.error();
    if (text.value() == none) {
      out.reset();
      return {};
    }
    return read_number(key, text.value(), out.emplace());
  }

  Status text(std::string_view key, std::string& out);

  template <typename Enum>
  Status choice(std::string_view key, Result<Enum> (*parse)(std::string_view), Enum& out) {
    const auto field = next(key);
    if (!field) return field.error();
    auto value = parse(field.value());
    if (!value) return std::move(value).error();
    out = value.value();
    return {};
  }

  [[nodiscard]] bool at_end() const noexcept { return rest_.empty(); }

 private:
  static Status read_number(std::string_view key, std::string_view text, std::uint64_t& out);
  static Status read_number(std::string_view key, std::string_view text, double& out);

  std::string_view rest_;
};

}  // namespace tfmbs::device

#pragma GCC visibility pop
