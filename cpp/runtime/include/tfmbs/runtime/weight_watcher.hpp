// Which float weights a layer has packed, and whether a source still holds them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "tfmbs/kernels/kernels.hpp"
#include "tfmbs/runtime/weight_source.hpp"

#pragma GCC visibility push(default)

namespace tfmbs::runtime {

// Not thread-safe.
class WeightWatcher {
 public:
  enum class Verdict : std::uint8_t {
    kCurrent,  // nothing has changed
    kMoved,    // the same contents; note() makes the next look cheap again
    kChanged,  // other contents, or none were seen yet
  };
  struct Look {
    Verdict verdict;
    std::optional<std::uint64_t> fingerprint;  // of the contents, where they were read
  };

  // Compares a source with what was noted: in training by its contents, else by version and
  // storage. The first comparison after training is by contents too: a write through `.data`
  // between the last training pass and eval() raises no version. Always by contents where another
  // process can write the memory.
  [[nodiscard]] Look look(const WeightSource& source) const;
  // Whether look() would say kCurrent, where that can be told from the held storage alone: the
  // source's own memory may have been freed or shrunk.
  [[nodiscard]] bool is_current(const WeightSource& source) const;

  // Whether a source of counted versions is what was noted, by version, storage and a sample alone:
  // what the backward pass asks, for a forward pass has compared contents.
  [[nodiscard]] bool is_unwritten(const WeightSource& source) const noexcept {
    return owner_ != nullptr && source.version.has_value() && same_place(source);
  }

  // Whether a reference to the storage of the values at that address is held.
  [[nodiscard]] bool retains(const void* data) const noexcept {
    return owner_ && owner_->memory().data() == data;
  }

  // What was packed is of this source. The reference that is given back must not end under a lock:
  // its end may wait for a language's own lock (the Python interpreter's, for torch storage that
  // Python has seen).
  [[nodiscard]] std::shared_ptr<const RetainedStorage> note(const WeightSource& source,
                                                            const Look& look);
  // Forgets all; what is given back as above.
  [[nodiscard]] std::shared_ptr<const RetainedStorage> forget();

 private:
  // Whether the source is of the same memory, all of which `owner_` still holds, and no write to it
  // shows. Reads nothing of it before that is sure. Where contents are compared anyway, the sample
  // is not looked at.
  [[nodiscard]] bool same_place(const WeightSource& source) const noexcept;

  bool seen_{false};
  const void* data_{nullptr};
  kernels::FloatType type_{kernels::FloatType::kFloat32};
  std::optional<std::int64_t> version_{};
  std::optional<std::uint64_t> fingerprint_{};
  std::shared_ptr<const RetainedStorage> owner_{};
  bool seen_by_content_{false};  // the last comparison was one of contents
  bool others_write_{false};     // the memory: other processes
  std::uint64_t sample_{0};      // of the source's values
};

}  // namespace tfmbs::runtime

#pragma GCC visibility pop
