#include "tfmbs/placement/bank_map.hpp"

#include <algorithm>
#include <utility>

#include "tfmbs/format/limits.hpp"
#include "tfmbs/format/text.hpp"

namespace tfmbs::placement {
namespace {

bool overlaps(std::uint64_t a, std::uint64_t a_words, std::uint64_t b,
              std::uint64_t b_words) noexcept {
  return a < b + b_words && b < a + a_words;
}

}  // namespace

Status BankMap::enter(LayerId id, std::string name, std::uint64_t outputs, std::uint64_t depth,
                      std::uint64_t tile_mask, std::optional<std::uint64_t> weight_address,
                      std::vector<LayerId>& evicted, std::optional<LayerId> replacing) {
  if (auto s = check_layer_size(name, outputs, depth, ErrorCode::kPlacement); !s) return s;
  Tenant tenant{.name = std::move(name),
                .tile_mask = tile_mask,
                .words = resident_words(geometry_, outputs, depth, tile_mask)};
  if (weight_address) {
    const std::uint64_t base = geometry_.bank_a_base(0);
    const std::uint64_t bank_bytes = 4ULL * geometry_.bank_a_words();
    const std::uint64_t address = *weight_address;
    const std::string subject = "layer '" + tenant.name + "': weight_addr " + hex(address);
    if (address < base || address >= base + bank_bytes || address % 4 != 0) {
      return Error{ErrorCode::kPlacement,
                   subject + " is not in tile 0's Bank A; allowed are multiples of 4 from " +
                       hex(base) + " to " + hex(base + bank_bytes - 4),
                   address};
    }
    const std::uint64_t word = (address - base) / 4;
    if (word + tenant.words > geometry_.bank_a_words()) {
      return Error{ErrorCode::kPlacement,
                   subject + " leaves " + std::to_string(geometry_.bank_a_words() - word) +
                       " words of Bank A, and the layer needs " + std::to_string(tenant.words),
                   address};
    }
    for (const LayerId other_id : occupants_) {
      const Tenant& other = tenants_.at(other_id);
      if (other_id != replacing && other.given_word && (other.tile_mask & tile_mask) != 0 &&
          overlaps(word, tenant.words, *other.given_word, other.words)) {
        return Error{ErrorCode::kPlacement,
                     subject + " overlaps layer '" + other.name + "', which was given " +
                         hex(base + 4ULL * *other.given_word) + " and takes " +
                         std::to_string(other.words) + " words",
                     address};
      }
    }
    tenant.given_word = static_cast<std::uint32_t>(word);
    tenant.word = *tenant.given_word;
  }
  std::vector<LayerId> overwritten;
  if (tenant.given_word) {
    overwritten = loaded_in(tile_mask, tenant.word, static_cast<std::uint32_t>(tenant.words));
  }
  if (occupants_.capacity() <= tenants_.size()) occupants_.reserve(2 * tenants_.size() + 8);
  Tenant& entered = tenants_.emplace(id, std::move(tenant)).first->second;
  // Nothing fails from here on.
  unload(overwritten);
  if (replacing) std::erase(overwritten, *replacing);
  evicted = std::move(overwritten);
  if (occupies(entered)) occupants_.push_back(id);
  ++era_;
  return {};
}

void BankMap::leave(LayerId id) noexcept {
  vacate(id);
  tenants_.erase(id);
  ++era_;
}

void BankMap::vacate(LayerId id) noexcept {
  const auto found = std::ranges::find(occupants_, id);
  if (found == occupants_.end()) return;
  *found = occupants_.back();
  occupants_.pop_back();
}

void BankMap::set_loaded(LayerId id, Tenant& tenant, bool loaded) noexcept {
  const bool before = occupies(tenant);
  tenant.loaded = loaded;
  if (occupies(tenant) == before) return;
  if (before) {
    vacate(id);
  } else {
    occupants_.push_back(id);
  }
}

Status BankMap::admit(LayerId id, std::uint64_t serial, Admission& admission) {
  Tenant& tenant = tenants_.at(id);
  admission.loaded = tenant.loaded;
  admission.serial = tenant.serial;
  admission.word = tenant.word;
  admission.last_use_before = tenant.last_use;
  admission.window = tenant.window;
  admission.window_era = tenant.window_era;
  admission.clock_before = clock_;
  admission.era_before = era_;
  try {
    if (auto s = place(id, tenant, serial, admission); !s) return s;
  } catch (...) {
    admission.last_use = tenant.last_use;
    admission.clock_after = clock_;
    admission.era_after = era_;
    undo(id, admission, [](LayerId) {});
    throw;
  }
  admission.last_use = tenant.last_use;
  admission.clock_after = clock_;
  admission.era_after = era_;
  return {};
}

Status BankMap::place(LayerId id, Tenant& tenant, std::uint64_t serial, Admission& admission) {
  admission.placement.tile_mask = tenant.tile_mask;
  if (tenant.window_era != era_) {
    if (fits(tenant) && settle(id, tenant, serial, admission)) return {};
    if (auto s = find_window(id, tenant, admission.evicted); !s) return s;
  }
  admission.placement.streamed = true;
  admission.placement.first_word = tenant.window.word;
  admission.placement.words = tenant.window.words;
  tenant.last_use = ++clock_;
  return {};
}

// Not where the layer was admitted again since, or lost the place that the admission gave it.
void BankMap::put_back(LayerId id, const Admission& admission) noexcept {
  const auto found = tenants_.find(id);
  if (found == tenants_.end() || found->second.last_use != admission.last_use) return;
  Tenant& tenant = found->second;
  if (!tenant.loaded && !admission.placement.streamed) return;
  set_loaded(id, tenant, admission.loaded);
  tenant.serial = admission.serial;
  tenant.word = admission.word;
  tenant.last_use = admission.last_use_before;
  tenant.window = admission.window;
  tenant.window_era = admission.window_era;
}

bool BankMap::settle(LayerId id, Tenant& tenant, std::uint64_t serial, Admission& admission) {
  if (tenant.loaded || tenant.given_word) {
    admission.hit = tenant.loaded && tenant.serial == serial;
    if (!tenant.loaded) ++era_;
  } else {
    const auto last_resort = first_fit(id, tenant.tile_mask, tenant.words, true);
    if (!last_resort) return false;
    auto word = first_fit(id, tenant.tile_mask, tenant.words, false);
    while (!word && evict_one(id, tenant.tile_mask, admission.evicted)) {
      word = first_fit(id, tenant.tile_mask, tenant.words, false);
    }
    tenant.word = word.value_or(*last_resort);
    ++era_;
  }
  admission.placement.first_word = tenant.word;
  admission.placement.words = static_cast<std::uint32_t>(tenant.words);
  set_loaded(id, tenant, true);
  tenant.serial = serial;
  tenant.last_use = ++clock_;
  return true;
}

Status BankMap::find_window(LayerId id, Tenant& tenant, std::vector<LayerId>& evicted) {
  const std::uint32_t least = min_window_words(geometry_);
  const Run best = largest_run(id, tenant.tile_mask, true);
  if (best.words < least) {
    return Error{ErrorCode::kPlacement, "layer '" + tenant.name +
                                            "' finds no room in Bank A: it can stream through " +
                                            std::to_string(least) +
                                            " words, and pinned layers and given addresses leave " +
                                            std::to_string(best.words)};
  }
  // Half a bank is worth evicting for; what can never be had is not.
  const std::uint32_t wanted =
      best.words >= wanted_window_words(geometry_) ? wanted_window_words(geometry_) : least;
  Run window = largest_run(id, tenant.tile_mask, false);
  while (window.words < wanted && evict_one(id, tenant.tile_mask, evicted)) {
    window = largest_run(id, tenant.tile_mask, false);
  }
  tenant.window = window;
  tenant.window_era = era_;
  return {};
}

bool BankMap::can_reside(LayerId id) const {
  const Tenant& tenant = tenants_.at(id);
  return fits(tenant) && (tenant.loaded || tenant.given_word ||
                          first_fit(id, tenant.tile_mask, tenant.words, true).has_value());
}

Status BankMap::set_pinned(LayerId id, bool pinned) {
  Tenant& tenant = tenants_.at(id);
  if (pinned && !fits(tenant)) {
    return Error{ErrorCode::kPlacement, "layer '" + tenant.name + "' cannot be pinned: it needs " +
                                            std::to_string(tenant.words) +
                                            " words of Bank A in each tile, and a bank has " +
                                            std::to_string(geometry_.bank_a_words())};
  }
  tenant.pinned = pinned;
  ++era_;
  return {};
}

std::vector<LayerId> BankMap::overwrite(std::uint64_t tile_mask, std::uint32_t word,
                                        std::uint32_t words) {
  std::vector<LayerId> overwritten = loaded_in(tile_mask, word, words);
  unload(overwritten);
  return overwritten;
}

void BankMap::unload(const std::vector<LayerId>& overwritten) noexcept {
  for (const LayerId id : overwritten) set_loaded(id, tenants_.at(id), false);
  ++era_;
}

std::vector<LayerId> BankMap::loaded_in(std::uint64_t tile_mask, std::uint32_t word,
                                        std::uint32_t words) const {
  std::vector<LayerId> found;
  for (const LayerId id : occupants_) {
    const Tenant& tenant = tenants_.at(id);
    if (tenant.loaded && (tenant.tile_mask & tile_mask) != 0 &&
        overlaps(word, words, tenant.word, tenant.words)) {
      found.push_back(id);
    }
  }
  return found;
}

std::vector<BankMap::Run> BankMap::free_runs(LayerId id, std::uint64_t tile_mask,
                                             bool kept_only) const {
  std::vector<Run> taken;
  for (const LayerId other_id : occupants_) {
    const Tenant& other = tenants_.at(other_id);
    if (other_id == id || (other.tile_mask & tile_mask) == 0) continue;
    const bool kept = other.given_word.has_value() || (other.loaded && other.pinned);
    if (kept || (!kept_only && other.loaded)) {
      taken.push_back({other.word, static_cast<std::uint32_t>(other.words)});
    }
  }
  std::sort(taken.begin(), taken.end(), [](Run a, Run b) { return a.word < b.word; });
  std::vector<Run> runs;
  std::uint32_t end = 0;
  for (const Run& run : taken) {  // may overlap: tiles of the mask need not agree
    if (run.word > end) runs.push_back({end, run.word - end});
    end = std::max(end, run.word + run.words);
  }
  if (end < geometry_.bank_a_words()) runs.push_back({end, geometry_.bank_a_words() - end});
  return runs;
}

std::optional<std::uint32_t> BankMap::first_fit(LayerId id, std::uint64_t tile_mask,
                                                std::uint64_t words, bool kept_only) const {
  for (const Run& run : free_runs(id, tile_mask, kept_only)) {
    if (run.words >= words) return run.word;
  }
  return std::nullopt;
}

BankMap::Run BankMap::largest_run(LayerId id, std::uint64_t tile_mask, bool kept_only) const {
  Run best;
  for (const Run& run : free_runs(id, tile_mask, kept_only)) {
    if (run.words > best.words) best = run;
  }
  return best;
}

bool BankMap::evict_one(LayerId id, std::uint64_t tile_mask, std::vector<LayerId>& evicted) {
  std::optional<LayerId> oldest;
  std::uint64_t last_use = 0;
  for (const LayerId other : occupants_) {
    const Tenant& tenant = tenants_.at(other);
    if (other == id || !tenant.loaded || tenant.pinned || tenant.given_word ||
        (tenant.tile_mask & tile_mask) == 0) {
      continue;
    }
    if (!oldest || tenant.last_use < last_use) {
      oldest = other;
      last_use = tenant.last_use;
    }
  }
  if (!oldest) return false;
  evicted.push_back(*oldest);
  set_loaded(*oldest, tenants_.at(*oldest), false);
  ++era_;
  return true;
}

}  // namespace tfmbs::placement
