// The tables of names, and that a mode's row says what its kernels do.
#include <gtest/gtest.h>

#include <string>

#include "tfmbs/linear/activation.hpp"
#include "tfmbs/linear/weight_quantizer.hpp"

namespace tfmbs::linear {
namespace {

TEST(ActivationModes, NamesRoundTrip) {
  std::string allowed;
  for (const ActivationMode& mode : activation_modes()) {
    const auto parsed = parse_activation(mode.name);
    ASSERT_TRUE(parsed.ok()) << mode.name;
    EXPECT_EQ(parsed.value(), mode.id);
    EXPECT_EQ(name_of(mode.id), mode.name);
    EXPECT_EQ(&mode_of(mode.id), &mode);
    allowed.append(allowed.empty() ? "'" : ", '").append(mode.name).append("'");
  }
  for (const char* wrong : {"", "Ternary", "int", "int8 "}) {
    const auto parsed = parse_activation(wrong);
    ASSERT_FALSE(parsed.ok());
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidArgument);
    std::string quoted = "'";
    quoted.append(wrong).append("'");
    EXPECT_NE(parsed.error().message.find(quoted), std::string::npos);
    EXPECT_NE(parsed.error().message.find(allowed), std::string::npos);
  }
}

TEST(ActivationModes, StandInTheOrderOfTheirNumbers) {
  ASSERT_EQ(activation_modes().size(), 2U);
  for (std::size_t i = 0; i < activation_modes().size(); ++i) {
    EXPECT_EQ(static_cast<std::size_t>(activation_modes()[i].id), i);
  }
}

TEST(ActivationModes, LayoutsAreOfTheModesProduct) {
  for (const ActivationMode& mode : activation_modes()) {
    EXPECT_EQ(is_int8(mode.layouts().cached), mode.by_values) << mode.name;
    EXPECT_EQ(is_int8(mode.layouts().streamed), mode.by_values) << mode.name;
  }
}

TEST(WeightQuantizers, NamesRoundTrip) {
  for (const WeightQuantizer quantizer : {WeightQuantizer::kSign, WeightQuantizer::kAbsmean,
                                          WeightQuantizer::kTwn, WeightQuantizer::kCustom}) {
    const auto parsed = parse_weight_quantizer(name_of(quantizer));
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(parsed.value(), quantizer);
  }
  EXPECT_FALSE(parse_weight_quantizer("mean").ok());
}

}  // namespace
}  // namespace tfmbs::linear
