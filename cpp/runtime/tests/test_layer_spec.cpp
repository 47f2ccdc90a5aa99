#include <gtest/gtest.h>

#include "tfmbs/runtime/layer_spec.hpp"

namespace tfmbs::runtime {
namespace {

LayerSpec full_spec() {
  LayerSpec spec{.name = "blocks.0/fc;1 = 100% é",
                 .outputs = 60,
                 .depth = 784,
                 .quantizer = WeightQuantizer::kTwn,
                 .activation = Activation::kInt8,
                 .weight_address = 0x1004,
                 .tile_mask = 0x8000000000000001,
                 .ste_clip = 7.75};
  spec.fabric = {"fabric-7",
                 Engine::kStepped,
                 {Geometry::make(64, 15, 100).value(), {.mac_pj = 0.1, .sram_pj = 1.0 / 3.0}}};
  return spec;
}

TEST(LayerSpec, TextRoundTripsEveryField) {
  const LayerSpec spec = full_spec();
  const auto parsed = LayerSpec::parse(spec.to_text());
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(parsed.value(), spec);
}

TEST(LayerSpec, DefaultFabricNeedsNoConfiguration) {
  const LayerSpec spec{.name = "fc1", .outputs = 1, .depth = 1};
  EXPECT_EQ(spec.to_text(),
            "tfmbs1;name=fc1;out=1;in=1;quantizer=sign;activation=ternary;address=auto;tile_mask=0;"
            "ste_clip=none;fabric=default");
  EXPECT_EQ(LayerSpec::parse(spec.to_text()).value(), spec);
}

TEST(LayerSpec, EveryTruncationAndEveryFlippedByteIsParsedOrRefused) {
  const std::string text = full_spec().to_text();
  for (std::size_t cut = 0; cut < text.size(); ++cut) {
    const auto parsed = LayerSpec::parse(text.substr(0, cut));
    if (parsed) {
      EXPECT_NE(parsed.value(), full_spec()) << cut;
    } else {
      EXPECT_FALSE(parsed.error().message.empty());
    }
  }
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (const char replacement : {'\0', '%', ';', '=', '9', '\xFF'}) {
      std::string broken = text;
      broken[at] = replacement;
      if (const auto parsed = LayerSpec::parse(broken); parsed && broken != text) {
        EXPECT_NE(parsed.value(), full_spec()) << broken;
      }
    }
  }
}

TEST(FabricSpec, TextRoundTripsAndIsTheEndOfALayers) {
  const FabricSpec spec = full_spec().fabric;
  EXPECT_EQ(FabricSpec::parse(spec.to_text()).value(), spec);
  EXPECT_TRUE(full_spec().to_text().ends_with(spec.to_text()));
  EXPECT_EQ(FabricSpec{}.to_text(), "fabric=default");
  EXPECT_EQ(FabricSpec::parse("fabric=default").value(), FabricSpec{});
  EXPECT_EQ(FabricSpec::parse("").value(), FabricSpec{});
  for (const char* text : {"fabric=mine", "default", "fabric=default;x=1", ";"}) {
    EXPECT_FALSE(FabricSpec::parse(text).ok()) << text;
  }
  EXPECT_FALSE(FabricSpec::parse(spec.to_text() + ";more=1").ok());
  std::string large = spec.to_text();
  large.replace(large.find("tiles=64"), 8, "tiles=65");
  ASSERT_FALSE(FabricSpec::parse(large).ok());
  EXPECT_EQ(FabricSpec::parse(large).error().code, ErrorCode::kGeometry);
}

TEST(LayerSpec, MessagesNameWhatIsAllowed) {
  const auto quantizer = parse_weight_quantizer("signed");
  ASSERT_FALSE(quantizer.ok());
  EXPECT_EQ(quantizer.error().message,
            "weight_quantizer is 'signed'; allowed are 'sign', 'absmean', 'twn', 'custom'");
  EXPECT_FALSE(LayerSpec::parse("").ok());
  EXPECT_FALSE(LayerSpec::parse("tfmbs2;name=a").ok());
}

}  // namespace
}  // namespace tfmbs::runtime
