#include "tfmbs/linear/packed_weights.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <optional>
#include <utility>

#include "tfmbs/format/panel_check.hpp"

namespace tfmbs::linear {
namespace {

using execution::Executor;

constexpr std::size_t kGrainWeights = std::size_t{1} << 18;

// Outputs [first, first + count) of a panel or more, on every thread.
template <typename Body>
void for_each_panels(std::size_t outputs, std::size_t depth, const Executor& executor,
                     const Body& body) {
  const std::size_t panels = (outputs + kPanelOutputs - 1) / kPanelOutputs;
  const std::size_t grain = 1 + kGrainWeights / kPanelOutputs / std::max<std::size_t>(1, depth);
  executor.parallel_for(panels, grain, [&](std::size_t begin, std::size_t end) {
    const std::size_t first = begin * kPanelOutputs;
    body(first, std::min(outputs, end * kPanelOutputs) - first);
  });
}

}  // namespace

PackedWeights::PackedWeights(const QuantizedWeights& weights, WeightLayout layout,
                             const Executor& executor)
    : panels_(layout, weights.planes.rows(), weights.planes.trits()),
      view_(panels_.view()),
      scales_(weights.scales),
      nan_outputs_(weights.nan_outputs),
      sparsity_(weights.sparsity()) {
  const BitPlaneView planes = weights.planes.view();
  for_each_panels(planes.rows, planes.trits, executor, [&](std::size_t first, std::size_t count) {
    // Of the matrix's own shape: there is nothing to refuse.
    static_cast<void>(panels_.set_rows(first, planes.slice(first, count)));
  });
}

PackedWeights::PackedWeights(const PackedWeights& other, WeightLayout layout,
                             const Executor& executor)
    : panels_(layout, other.panels().outputs, other.panels().depth),
      view_(panels_.view()),
      scales_(other.scales_),
      nan_outputs_(other.nan_outputs_),
      sparsity_(other.sparsity_) {
  const WeightPanelsView from = other.panels();
  for_each_panels(from.outputs, from.depth, executor, [&](std::size_t first, std::size_t count) {
    for (std::size_t row = first; row < first + count; row += kPanelOutputs) {
      const BitPlaneMatrix rows = other.rows(row, std::min(kPanelOutputs, first + count - row));
      static_cast<void>(panels_.set_rows(row, rows.view()));
    }
  });
}

Result<PackedWeights> PackedWeights::borrow(WeightPanelsView panels, GroupScalesView groups,
                                            std::vector<double> scales,
                                            std::shared_ptr<const void> owner,
                                            const Executor& executor) {
  std::atomic<std::uint64_t> zeros{0};
  std::mutex mutex;
  std::optional<Error> fault;  // the first of them in memory, whatever thread finds it
  const std::size_t outputs = panels.depth == 0 ? 0 : panels.outputs;  // nothing to read
  for_each_panels(outputs, panels.depth, executor, [&](std::size_t first, std::size_t count) {
    const std::size_t end = (first + count + kPanelOutputs - 1) / kPanelOutputs;
    for (std::size_t p = first / kPanelOutputs; p < end; ++p) {
      auto planes = checked_panel_rows(panels, p);
      if (planes) {
        zeros += count_zeros(planes.value().view());
        continue;
      }
      const std::scoped_lock lock(mutex);
      if (!fault || *planes.error().offset < *fault->offset) fault = planes.error();
      return;
    }
  });
  if (fault) return *std::move(fault);
  PackedWeights made;
  made.view_ = panels;
  made.groups_ = groups;
  made.owner_ = std::move(owner);
  made.scales_ = std::move(scales);
  const auto size = static_cast<double>(panels.outputs) * static_cast<double>(panels.depth);
  if (size > 0.0) made.sparsity_ = static_cast<double>(zeros) / size;
  made.mark_nan_outputs();
  return made;
}

void PackedWeights::mark_nan_outputs() {
  const auto mark = [this](std::size_t output) {
    if (nan_outputs_.empty()) nan_outputs_.resize(outputs());
    nan_outputs_[output] = 1;
  };
  for (std::size_t n = 0; n < outputs() && !scales_.empty(); ++n) {
    if (std::isnan(scales_[scales_.size() == 1 ? 0 : n])) mark(n);
  }
  for (std::size_t n = 0; n < outputs() && has_groups(); ++n) {
    for (std::size_t g = 0; g < groups_.groups(); ++g) {
      if (std::isnan(groups_.values[groups_.index(n, g)])) {
        mark(n);
        break;
      }
    }
  }
}

std::size_t PackedWeights::bytes() const noexcept {
  return view_.size() + scales_.size() * sizeof(double) + nan_outputs_.size();
}

bool PackedWeights::has_trits_of(const PackedWeights& other) const {
  const WeightPanelsView a = panels();
  const WeightPanelsView b = other.panels();
  if (a.outputs != b.outputs || a.depth != b.depth) return false;
  // A layout has one code a trit, padding included.
  if (a.layout == b.layout) return std::equal(a.bytes, a.bytes + a.size(), b.bytes);
  for (std::size_t row = 0; row < a.outputs; row += kPanelOutputs) {
    const std::size_t count = std::min(kPanelOutputs, a.outputs - row);
    const BitPlaneMatrix mine = rows(row, count);
    const BitPlaneMatrix others = other.rows(row, count);
    const std::size_t words = count * mine.row_words();
    if (!std::equal(mine.view().words, mine.view().words + words, others.view().words)) {
      return false;
    }
  }
  return true;
}

}  // namespace tfmbs::linear
