#include "tfmbs/format/geometry.hpp"

#include <string>

#include "tfmbs/format/text.hpp"

namespace tfmbs {
namespace {

Error out_of_range(const char* what, std::uint64_t given, std::uint64_t low, std::uint64_t high) {
  return {ErrorCode::kGeometry, std::string(what) + " is " + std::to_string(given) +
                                    "; allowed are " + std::to_string(low) + " to " +
                                    std::to_string(high)};
}

Error bad_address(std::uint64_t address, const std::string& why) {
  return {ErrorCode::kAddress, "address " + hex(address) + " " + why, address};
}

}  // namespace

Result<Geometry> Geometry::make(std::uint64_t tiles, std::uint64_t lanes,
                                std::uint64_t bank_depth) {
  if (tiles < 1 || tiles > kMaxTiles) {
    return out_of_range("tiles", tiles, 1, kMaxTiles);
  }
  if (lanes < 1 || lanes > kMaxLanes) {
    return out_of_range("lanes", lanes, 1, kMaxLanes);
  }
  if (bank_depth < kMinBankDepth || bank_depth > kMaxBankDepth) {
    return out_of_range("bank_depth", bank_depth, kMinBankDepth, kMaxBankDepth);
  }
  Geometry geometry;
  geometry.tiles_ = static_cast<std::uint32_t>(tiles);
  geometry.lanes_ = static_cast<std::uint32_t>(lanes);
  geometry.bank_depth_ = static_cast<std::uint32_t>(bank_depth);

  // bank_a_words() is a 32-bit product, so the bank alone must fit before end() can be asked.
  constexpr std::uint64_t kAddressSpace = std::uint64_t{1} << 32;
  const std::uint64_t bank_bytes = 4ULL * geometry.bank_depth_ * geometry.words_per_depth();
  if (bank_bytes >= kAddressSpace || geometry.end() > kAddressSpace) {
    return Error{ErrorCode::kGeometry,
                 std::to_string(tiles) + " tiles of " + std::to_string(lanes) + " lanes and " +
                     std::to_string(bank_depth) + " depths (" + std::to_string(bank_bytes) +
                     " bytes a Bank A) do not fit in 32-bit addresses"};
  }
  return geometry;
}

Result<Location> Geometry::locate(std::uint64_t address, std::uint64_t bytes) const {
  if (address % 4 != 0) {
    return bad_address(address, "is not a multiple of 4");
  }
  if (bytes == 0 || bytes % 4 != 0) {
    return bad_address(address, "with " + std::to_string(bytes) +
                                    " bytes: the size must be a positive multiple of 4");
  }
  // Every region is a run of `words` words that starts at `base`; a gap may follow it.
  const auto within = [&](Region region, std::uint64_t tile, std::uint64_t base,
                          std::uint64_t words) -> Result<Location> {
    const std::uint64_t offset = address - base;
    const std::uint64_t size = 4 * words;
    if (offset >= size) {
      return bad_address(address,
                         "is in no region (the one below it ends at " + hex(base + size) + ")");
    }
    if (bytes > size - offset) {
      return bad_address(address, "with " + std::to_string(bytes) +
                                      " bytes goes across the end of its region at " +
                                      hex(base + size));
    }
    return Location{region, static_cast<std::uint32_t>(tile),
                    static_cast<std::uint32_t>(offset / 4)};
  };

  if (address < kResultsBase) {
    return bad_address(address, "is below the first region, the results at " + hex(kResultsBase));
  }
  if (address < first_bank()) {
    std::uint64_t tile = (address - kResultsBase) / result_stride();
    if (tile >= tiles_) {
      tile = tiles_ - 1;  // the gap before the banks; within() refuses it
    }
    return within(Region::kResults, tile, kResultsBase + tile * result_stride(), lanes_);
  }
  if (address < broadcast_base()) {
    const std::uint64_t tile = (address - first_bank()) / tile_stride();
    const std::uint64_t bank_a = first_bank() + tile * tile_stride();
    const std::uint64_t bank_b = bank_a + bank_stride();
    return address < bank_b ? within(Region::kBankA, tile, bank_a, bank_a_words())
                            : within(Region::kBankB, tile, bank_b, bank_b_words());
  }
  return within(Region::kBroadcast, 0, broadcast_base(), bank_b_words());
}

}  // namespace tfmbs
