#include <gtest/gtest.h>

#include "tfmbs/runtime/layer_spec.hpp"

namespace tfmbs::runtime {
namespace {

using device::Engine;
using device::FabricSpec;

LayerIdentity full_identity() {
  return {.name = "blocks.0/fc;1 = 100% é",
          .weight_address = 0x1004,
          .tile_mask = 0x8000000000000001,
          .fabric = FabricSpec{
              "fabric-7",
              Engine::kStepped,
              {Geometry::make(64, 15, 100).value(), {.mac_pj = 0.1, .sram_pj = 1.0 / 3.0}}}};
}

TEST(LayerIdentity, TextRoundTripsEveryField) {
  const LayerIdentity identity = full_identity();
  const auto parsed = LayerIdentity::parse(identity.to_text());
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(parsed.value(), identity);
}

TEST(LayerIdentity, DefaultFabricNeedsNoConfiguration) {
  const LayerIdentity identity{.name = "fc1"};
  EXPECT_EQ(identity.to_text(), "tfmbs2;name=fc1;address=auto;tile_mask=0;fabric=default");
  EXPECT_EQ(LayerIdentity::parse(identity.to_text()).value(), identity);
}

TEST(LayerIdentity, ALayerMayHaveNoDevice) {
  const LayerIdentity identity{.name = "fc1", .fabric = std::nullopt, .token = 7};
  EXPECT_EQ(identity.to_text(), "tfmbs2;name=fc1;address=auto;tile_mask=0;fabric=none;token=7");
  EXPECT_EQ(LayerIdentity::parse(identity.to_text()).value(), identity);
  EXPECT_FALSE(LayerIdentity::parse("tfmbs2;fabric=none").ok());
}

TEST(LayerIdentity, EveryTruncationAndEveryFlippedByteIsParsedOrRefused) {
  const std::string text = full_identity().to_text();
  for (std::size_t cut = 0; cut < text.size(); ++cut) {
    const auto parsed = LayerIdentity::parse(text.substr(0, cut));
    if (parsed) {
      EXPECT_NE(parsed.value(), full_identity()) << cut;
    } else {
      EXPECT_FALSE(parsed.error().message.empty());
    }
  }
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (const char replacement : {'\0', '%', ';', '=', '9', '\xFF'}) {
      std::string broken = text;
      broken[at] = replacement;
      if (const auto parsed = LayerIdentity::parse(broken); parsed && broken != text) {
        EXPECT_NE(parsed.value(), full_identity()) << broken;
      }
    }
  }
}

TEST(LayerSpec, TextIsTheWhole) {
  const LayerSpec spec{.identity = {.name = "fc1"}, .outputs = 60, .depth = 784};
  EXPECT_EQ(spec.to_text(),
            "tfmbs1;name=fc1;out=60;in=784;quantizer=sign;activation=ternary;address=auto;"
            "tile_mask=0;fabric=default");
}

TEST(FabricSpec, TextRoundTripsAndIsTheEndOfALayers) {
  const FabricSpec spec = *full_identity().fabric;
  EXPECT_EQ(FabricSpec::parse(spec.to_text()).value(), spec);
  EXPECT_TRUE(full_identity().to_text().ends_with(spec.to_text()));
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
  const auto quantizer = linear::parse_weight_quantizer("signed");
  ASSERT_FALSE(quantizer.ok());
  EXPECT_EQ(quantizer.error().message,
            "weight_quantizer is 'signed'; allowed are 'sign', 'absmean', 'twn', 'custom'");
  EXPECT_FALSE(LayerIdentity::parse("").ok());
  EXPECT_FALSE(LayerIdentity::parse("tfmbs1;name=a").ok());
}

}  // namespace
}  // namespace tfmbs::runtime
