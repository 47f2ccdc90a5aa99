// Who lies where in Bank A: allocation, residency, eviction. Offsets are words, the same in every
// tile of a layer's mask; layers whose masks share no tile may lie at the same words. Not
// thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "tfmbs/format/error.hpp"
#include "tfmbs/format/geometry.hpp"
#include "tfmbs/placement/schedule.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::placement {

using LayerId = std::uint64_t;

class BankMap {
 public:
  explicit BankMap(const Geometry& geometry) : geometry_(geometry) {}

  struct Run {
    std::uint32_t word{0};
    std::uint32_t words{0};
  };

  struct Tenant {
    std::string name;
    std::uint64_t tile_mask{1};
    std::uint64_t words{0};  // what residency takes in each tile of the mask; may exceed the bank
    std::optional<std::uint32_t> given_word{};  // set where the user gave an address
    bool pinned{false};
    bool loaded{false};       // its weights lie at `word`
    std::uint64_t serial{0};  // of the weights that were loaded
    std::uint32_t word{0};    // valid where loaded or given
    std::uint64_t last_use{0};
    Run window{};                 // through which it streamed last,
    std::uint64_t window_era{0};  // and when: it is that window again while the era lasts
  };

  struct Admission {
    Placement placement{};
    bool hit{false};
    std::vector<LayerId> evicted{};

   private:
    friend class BankMap;
    // What undo() puts back: of the tenant,
    bool loaded{false};
    std::uint64_t serial{0};
    std::uint32_t word{0};
    std::uint64_t last_use_before{0};
    Run window{};
    std::uint64_t window_era{0};
    // and of the map.
    std::uint64_t clock_before{0};
    std::uint64_t era_before{0};
    std::uint64_t last_use{0};  // the tenant's, and
    std::uint64_t clock_after{0};
    std::uint64_t era_after{0};  // the map's, as admit() left them
  };

  // A layer arrives. A given address is a byte address in tile 0's Bank A. Errors: kPlacement (a
  // layer beyond format/limits.hpp; an address that is misaligned, outside the bank, leaves too
  // little of it, or overlaps another given address; names both layers). `evicted` gets the
  // automatically placed layers that make way. `replacing`, which leaves if this one enters, is in
  // nobody's way and is no eviction.
  Status enter(LayerId id, std::string name, std::uint64_t outputs, std::uint64_t depth,
               std::uint64_t tile_mask, std::optional<std::uint64_t> weight_address,
               std::vector<LayerId>& evicted, std::optional<LayerId> replacing = std::nullopt);
  void leave(LayerId id) noexcept;

  // A forward needs the layer's weights, those of `serial`: found (hit), placed (evicting the least
  // recently used unpinned layers as needed), or streamed through a window. Errors: kPlacement
  // where pinned and given layers leave no window; nothing has changed then. `admission` is new,
  // and unspecified after an error.
  Status admit(LayerId id, std::uint64_t serial, Admission& admission);

  // The work that an admission was for has failed: the map is as if it had not been made. Where the
  // map has changed since, that stands: the words of the layers that made way may have been written
  // by others, so they stay out, and `still_evicted` is called with each.
  template <typename StillEvicted>
  void undo(LayerId id, const Admission& admission, const StillEvicted& still_evicted) noexcept {
    const bool last = era_ == admission.era_after && clock_ == admission.clock_after;
    put_back(id, admission);
    if (last) {
      for (const LayerId other : admission.evicted) set_loaded(other, tenants_.at(other), true);
      era_ = admission.era_before;
      clock_ = admission.clock_before;
      return;
    }
    for (const LayerId other : admission.evicted) still_evicted(other);
    ++era_;
  }
  // Whether the layer was admitted again since, and so may have found what this admission loads.
  [[nodiscard]] bool admitted_since(LayerId id, const Admission& admission) const noexcept {
    const auto found = tenants_.find(id);
    return found != tenants_.end() && found->second.last_use != admission.last_use;
  }

  // Pinned layers are not evicted. Errors: kPlacement where the layer can never be resident.
  Status set_pinned(LayerId id, bool pinned);
  // The words were overwritten from outside: whoever is loaded there loses its place.
  std::vector<LayerId> overwrite(std::uint64_t tile_mask, std::uint32_t word, std::uint32_t words);
  // The same in two steps, of which the second cannot fail: who would lose its place, and does.
  [[nodiscard]] std::vector<LayerId> loaded_in(std::uint64_t tile_mask, std::uint32_t word,
                                               std::uint32_t words) const;
  void unload(const std::vector<LayerId>& overwritten) noexcept;

  [[nodiscard]] const Tenant& tenant(LayerId id) const { return tenants_.at(id); }
  // Whether admit() would make the layer resident, evicting others if need be, and not stream it.
  [[nodiscard]] bool can_reside(LayerId id) const;
  // Words of the longest run that pinned layers and given addresses leave on the layer's tiles.
  [[nodiscard]] std::uint32_t kept_room(LayerId id) const {
    return largest_run(id, tenants_.at(id).tile_mask, true).words;
  }

 private:
  friend class BankMapTest;  // compares with a map that remembers no window

  [[nodiscard]] bool fits(const Tenant& tenant) const {
    return tenant.words <= geometry_.bank_a_words();
  }
  // Free runs for a mask, in order; `kept_only` counts only layers that cannot be evicted.
  [[nodiscard]] std::vector<Run> free_runs(LayerId id, std::uint64_t tile_mask,
                                           bool kept_only) const;
  [[nodiscard]] std::optional<std::uint32_t> first_fit(LayerId id, std::uint64_t tile_mask,
                                                       std::uint64_t words, bool kept_only) const;
  [[nodiscard]] Run largest_run(LayerId id, std::uint64_t tile_mask, bool kept_only) const;
  // Evicts the least recently used unpinned automatic layer on the mask; false if there is none.
  bool evict_one(LayerId id, std::uint64_t tile_mask, std::vector<LayerId>& evicted);

  // Whether a tenant keeps others from its words.
  [[nodiscard]] static bool occupies(const Tenant& tenant) noexcept {
    return tenant.loaded || tenant.given_word.has_value();
  }
  void vacate(LayerId id) noexcept;
  void set_loaded(LayerId id, Tenant& tenant, bool loaded) noexcept;
  void put_back(LayerId id, const Admission& admission) noexcept;
  Status place(LayerId id, Tenant& tenant, std::uint64_t serial, Admission& admission);

  // A layer that fits is found or placed, in `admission`; false, with nothing changed, where what
  // is kept leaves no room for it.
  bool settle(LayerId id, Tenant& tenant, std::uint64_t serial, Admission& admission);
  // The tenant's window, of this era. Errors: as admit().
  Status find_window(LayerId id, Tenant& tenant, std::vector<LayerId>& evicted);

  Geometry geometry_;
  std::unordered_map<LayerId, Tenant> tenants_;
  // Those that keep others from words, in no order: a search looks at these alone. Has room for all
  // tenants.
  std::vector<LayerId> occupants_;
  std::uint64_t clock_{0};
  // Ends whenever words are taken or freed, or become evictable or not. A forward of a layer that
  // streams so looks at no other layer while nobody moves.
  std::uint64_t era_{1};
};

}  // namespace tfmbs::placement

#pragma GCC visibility pop
