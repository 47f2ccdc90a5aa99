"""The search for a placement: which layers are kept, on how many tiles each, and how they are laid.

Every candidate is played on the device's own allocator until its rounds repeat, and each forward is
priced by the device's own time line, so what a candidate costs is what it will cost.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from .. import _fabric
from ..errors import PlacementError
from .costs import ForwardCosts
from .packing import PACKINGS, Kept, pack, spread

KEEP, FLOAT, CPU = "keep", "float", "cpu"
#: Called now and then with candidates tried, the most that will be, and the least cycles so far.
Progress = Callable[[int, int, float], None]

_EXHAUSTIVE = 4096  # candidates up to which all are tried
_ALL_PAIRS = 2048  # changes of two layers up to which all are tried
_WIDTHS = 8  # numbers of tiles tried of a layer
_ROUNDS = (
    24  # in which a candidate must repeat itself; the mean of the later half where it does not
)


class Choice(NamedTuple):
    """kind: kept at an address, floating (the device places or streams it), or on the CPU."""

    kind: str
    tiles: int


class Place(NamedTuple):
    """first_word: None is automatic. On the CPU: tile_mask 0."""

    tile_mask: int
    first_word: int | None


class Admission(NamedTuple):
    """What the device does with one forward of a layer; first_word and words are the window's where
    it streams."""

    first_word: int
    words: int
    streamed: bool
    hit: bool


@dataclass(frozen=True)
class Outcome:
    """A candidate in its steady state. Of one forward of all layers: cycles (CPU time in cycles of
    the fabric included), words to and from host memory, misses; by layer: cycles, and admissions of
    the rounds that repeat (none on the CPU)."""

    places: tuple[Place, ...]
    cycles: float
    words: float
    misses: float
    layer_cycles: tuple[float, ...]
    admissions: tuple[tuple[Admission, ...], ...]

    @property
    def rank(self) -> tuple[float, float]:
        return (self.cycles, self.words)


#: First word, words, streamed and hit of every layer on the fabric, in turn.
_Round = tuple[tuple[int, int, bool, bool], ...]


class _State(NamedTuple):
    choices: tuple[Choice, ...]
    packing: int


class Search:
    """One search over one network. cpu_cycles: of each layer on the CPU; None leaves it out."""

    def __init__(
        self,
        costs: ForwardCosts,
        cpu_cycles: Sequence[float] | None,
        max_candidates: int,
        progress: Progress | None,
    ) -> None:
        self._costs = costs
        self._config = costs.config
        self._layers = range(len(costs.workloads))
        self._cpu = cpu_cycles
        self._limit = max_candidates
        self._progress = progress
        self._tried = 0
        self._outcomes: dict[tuple[Place, ...], Outcome | None] = {}
        self._options = [self._choices_of(layer) for layer in self._layers]
        self._items = [
            {
                choice: Kept(layer, choice.tiles, costs.words(layer, choice.tiles or 1))
                for choice in self._options[layer]
            }
            for layer in self._layers
        ]
        self._best: Outcome | None = None

    # --- candidates ---------------------------------------------------------------------------

    def play(self, places: Sequence[Place]) -> Outcome | None:
        """The steady state of a placement; None where a layer finds no room even to stream."""
        key = tuple(places)
        if key not in self._outcomes:
            try:
                self._outcomes[key] = self._play(key)
            except PlacementError:
                self._outcomes[key] = None
        return self._outcomes[key]

    @property
    def tried(self) -> int:
        """Candidates so far, those that were no placement included."""
        return self._tried

    def automatic_places(self) -> list[Place]:
        return [
            Place(_fabric.default_tile_mask(self._config, work.outputs), None)
            for work in self._costs.workloads
        ]

    def run(self, seeds: Sequence[Sequence[Place]] = ()) -> Outcome:
        """The best candidate. seeds: placements to start from beside the search's own."""
        automatic = self.play(self.automatic_places())
        assert automatic is not None  # without kept layers every layer finds a window
        self._best = automatic
        for places in seeds:
            self._take(self.play(places))
        size = len(PACKINGS) * math.prod(len(options) for options in self._options)
        if size <= min(_EXHAUSTIVE, self._limit):
            for choices in itertools.product(*self._options):
                for packing in range(len(PACKINGS)):
                    self._try(_State(choices, packing))
            return self._best
        bound = sum(min(self._least(layer)) for layer in self._layers)
        starts = sorted(self._starts(), key=lambda state: _rank(self._try(state)))
        for start in starts[:3]:
            self._improve(start)
            if self._best.cycles <= bound or self._tried >= self._limit:
                break
        return self._best

    def _choices_of(self, layer: int) -> list[Choice]:
        """Of the numbers of tiles only the fewest that give as few passes."""
        widths: dict[int, int] = {}
        for tiles in range(1, self._config.tiles + 1):
            widths.setdefault(self._costs.passes(layer, tiles), tiles)
        wide = sorted(widths.values(), reverse=True)[:_WIDTHS]
        fitting = [t for t in wide if self._costs.words(layer, t) <= self._costs.bank_words]
        choices = [Choice(FLOAT, tiles) for tiles in wide]
        choices += [Choice(KEEP, tiles) for tiles in fitting]
        if self._cpu is not None:
            choices.append(Choice(CPU, 0))
        return choices

    def _least(self, layer: int) -> Iterator[float]:
        """What a layer costs at best, choice by choice."""
        for kind, tiles in self._options[layer]:
            if kind == CPU and self._cpu is not None:
                yield self._cpu[layer]
            elif kind == KEEP:
                words = self._costs.words(layer, tiles)
                yield self._costs.forward(layer, tiles, False, words, True).cycles
            else:
                words = self._costs.bank_words
                yield self._costs.forward(layer, tiles, True, words, False).cycles

    # --- the walk -----------------------------------------------------------------------------

    def _starts(self) -> Iterator[_State]:
        """All floating; and for each part of the bank left free, the layers kept that gain most a
        word."""
        floating = tuple(options[0] for options in self._options)
        yield _State(floating, 0)
        gains = []
        for layer in self._layers:
            for choice in self._options[layer]:
                if choice.kind != KEEP:
                    continue
                words = self._costs.words(layer, choice.tiles)
                gain = (
                    self._costs.forward(layer, choice.tiles, False, words, False).cycles
                    - self._costs.forward(layer, choice.tiles, False, words, True).cycles
                )
                gains.append((gain / (words * choice.tiles), layer, choice))
        gains.sort(key=lambda item: (-item[0], item[1], item[2]))
        bank = self._costs.bank_words
        wanted = _fabric.wanted_window_words(self._config)
        least = _fabric.min_window_words(self._config)
        for packing, free in itertools.product(
            range(len(PACKINGS)), sorted({0, least, bank // 4, wanted})
        ):
            state = _State(floating, packing)
            for _, layer, choice in gains:
                if state.choices[layer].kind == KEEP:
                    continue
                grown = _with(state, layer, choice)
                if self._places(grown, bank - free) is not None:
                    state = grown
            yield state

    def _improve(self, state: _State) -> None:
        """Changes one layer at a time, then swaps two, as long as that helps; of small networks
        then any two."""
        rank = _rank(self._try(state))
        moves: list[Callable[[_State], Iterator[_State]]] = [_packings]
        moves += [partial(self._changes, layer) for layer in self._layers]
        moves += [partial(self._swaps, layer) for layer in self._layers]
        counts = [len(options) for options in self._options]
        pairs = list(itertools.combinations(self._layers, 2))
        if sum(counts[one] * counts[two] for one, two in pairs) <= _ALL_PAIRS:
            moves += [partial(self._pairs, one, two) for one, two in pairs]
        fruitless = 0
        for move in itertools.cycle(moves):
            before = state
            for candidate in move(before):
                if self._tried >= self._limit:
                    return
                candidate_rank = _rank(self._try(candidate))
                if candidate_rank < rank:
                    state, rank = candidate, candidate_rank
            fruitless = 0 if state != before else fruitless + 1
            if fruitless == len(moves):
                return

    def _changes(self, layer: int, state: _State) -> Iterator[_State]:
        for choice in self._options[layer]:
            if choice != state.choices[layer]:
                yield _with(state, layer, choice)

    def _swaps(self, out: int, state: _State) -> Iterator[_State]:
        """A kept layer makes way for another."""
        if state.choices[out].kind != KEEP:
            return
        freed = _with(state, out, self._options[out][0])
        for into in self._layers:
            for choice in self._options[into]:
                if into != out and choice.kind == KEEP and choice != state.choices[into]:
                    yield _with(freed, into, choice)

    def _pairs(self, one: int, two: int, state: _State) -> Iterator[_State]:
        for first in self._options[one]:
            for second in self._options[two]:
                if first != state.choices[one] and second != state.choices[two]:
                    yield _with(_with(state, one, first), two, second)

    def _try(self, state: _State) -> Outcome | None:
        self._tried += 1
        if self._progress is not None and self._tried % 256 == 0 and self._best is not None:
            self._progress(self._tried, self._limit, self._best.cycles)
        places = self._places(state, self._costs.bank_words)
        return None if places is None else self._take(self.play(places))

    def _take(self, outcome: Outcome | None) -> Outcome | None:
        if outcome is not None and (self._best is None or outcome.rank < self._best.rank):
            self._best = outcome
        return outcome

    # --- one candidate ------------------------------------------------------------------------

    def _places(self, state: _State, bank_words: int) -> list[Place] | None:
        items: dict[str, list[Kept]] = {KEEP: [], FLOAT: [], CPU: []}
        for layer, choice in enumerate(state.choices):
            items[choice.kind].append(self._items[layer][choice])
        packed = pack(items[KEEP], self._config.tiles, bank_words, PACKINGS[state.packing])
        if packed is None:
            return None
        kept, top = packed
        floating = spread(items[FLOAT], top)
        return [
            Place(*kept[layer]) if layer in kept else Place(floating.get(layer, 0), None)
            for layer in self._layers
        ]

    def _play(self, places: tuple[Place, ...]) -> Outcome:
        bank = _fabric.BankMap(self._config)
        base = self._config.bank_a_base(0)
        numbers: dict[int, int] = {}
        for layer, (mask, word) in enumerate(places):
            if mask:
                work = self._costs.workloads[layer]
                address = None if word is None else base + 4 * word
                numbers[layer] = bank.enter(work.layer, work.outputs, work.inputs, mask, address)
        rounds: list[_Round] = []
        while len(rounds) < _ROUNDS and not _period(rounds):
            rounds.append(tuple(bank.admit(number) for number in numbers.values()))
        count = _period(rounds) or _ROUNDS // 2
        del rounds[:-count]
        cycles = [0.0] * len(places)
        words = misses = 0.0
        admissions: list[tuple[Admission, ...]] = [()] * len(places)
        for index, layer in enumerate(numbers):
            admissions[layer] = tuple(Admission(*played[index]) for played in rounds)
            tiles = places[layer].tile_mask.bit_count()
            total = 0.0  # of whole rounds, so that a mean of equal ones is one of them
            for _, size, streamed, hit in admissions[layer]:
                cost = self._costs.forward(layer, tiles, streamed, size, hit)
                total += cost.cycles
                words += cost.words
                misses += not hit
            cycles[layer] = total / count
        for layer, place in enumerate(places):
            if not place.tile_mask and self._cpu is not None:
                cycles[layer] = self._cpu[layer]
        return Outcome(
            places, sum(cycles), words / count, misses / count, tuple(cycles), tuple(admissions)
        )


def _period(rounds: Sequence[_Round]) -> int:
    """Of how many rounds the last are a repetition; 0 where they are none. What takes turns need not
    be back after one round: two states may alternate."""
    for count in range(1, len(rounds) // 2 + 1):
        if rounds[-count:] == rounds[-2 * count : -count]:
            return count
    return 0


def _packings(state: _State) -> Iterator[_State]:
    for packing in range(len(PACKINGS)):
        if packing != state.packing:
            yield state._replace(packing=packing)


def _with(state: _State, layer: int, choice: Choice) -> _State:
    choices = (*state.choices[:layer], choice, *state.choices[layer + 1 :])
    return state._replace(choices=choices)


def _rank(outcome: Outcome | None) -> tuple[float, float]:
    return (math.inf, math.inf) if outcome is None else outcome.rank
