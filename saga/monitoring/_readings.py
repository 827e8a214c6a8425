"""Turns counts into what exporters show, family by family, and keeps the number of series bounded."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from saga.monitoring import _families as families
from saga.monitoring._figures import OTHER
from saga.types import AT_REST, Outcome, Phase, SagaStatus

if TYPE_CHECKING:
    from saga.monitoring._figures import Counts, Figures, Work
    from saga.types import SagaStatistics

Labels = tuple[str, ...]
Reading = dict[str, dict[Labels, float]]
"""By the name of a family: the values of its labels, and what they stand at."""

ENDINGS = (SagaStatus.COMPLETED, SagaStatus.ROLLED_BACK, SagaStatus.FAILED)

SERIES_STORED = 3
"""What one saga name makes of what is read from the storage."""

SERIES_OF_WORK = len(Outcome) + 1
"""What one phase of one step makes: the attempts of each outcome, and the seconds they took."""

SERIES_OF_NAME = 14 + SERIES_STORED + len(Phase) * SERIES_OF_WORK
"""What one saga name makes: 5 of each process, 9 of its endings, what is stored, and the steps that are not told apart.

The last are paid for at once, so that a step without a label of its own is still counted under its saga.
"""

NAMES_KEPT = 4
"""For so many names there is room even where steps, or names that are only stored, come first."""

STORED_MAX = 4
"""So many names that nobody has driven here get a label: the processes that drive them show them, too."""

OBSERVERS_MAX = 4

SERIES_SHARED = SERIES_OF_NAME + OBSERVERS_MAX + 1 + 3
"""What is there in any case: what stands under ``other``, errors of observers, and three without labels of users."""

SERIES_MIN = SERIES_SHARED + NAMES_KEPT * SERIES_OF_NAME


class Budget:
    """Gives labels away while there is room for all of their series; whoever comes later shares ``other``.

    What was given is never taken back, and what was refused is never given: a counter that moved would lie. Only what
    is read from the storage may move, since gauges of several processes are never added up.
    """

    def __init__(self, series_max: int) -> None:
        """Begin with nothing given."""
        self._room = series_max - SERIES_SHARED
        self._names: set[str] = set()
        self._stored: set[str] = set()
        self._observers: set[str] = set()
        self._works: dict[Labels, Labels] = {}

    def name(self, name: str) -> str:
        """Return the label of the name of sagas that are driven here."""
        if name == OTHER or name in self._names:
            return name
        price = SERIES_OF_NAME - (SERIES_STORED if name in self._stored else 0)
        if self._room < price:
            return OTHER
        self._room -= price
        self._names.add(name)
        self._stored.discard(name)
        return name

    def stored(self, name: str) -> str:
        """Return the label of the name of sagas that are stored, whoever drives them."""
        if name in self._names or name in self._stored:
            return name
        if len(self._stored) == STORED_MAX or self._free() < SERIES_STORED:
            return OTHER
        self._room -= SERIES_STORED
        self._stored.add(name)
        return name

    def observer(self, name: str) -> str:
        """Return the label of an observer's type."""
        if name not in self._observers:
            if len(self._observers) == OBSERVERS_MAX:
                return OTHER
            self._observers.add(name)
        return name

    def work(self, saga: str, step: str, phase: str) -> Labels:
        """Return the labels of all series of one phase of a step."""
        asked = (saga, step, phase)
        known = self._works.get(asked)
        if known is None:
            known = self._works[asked] = self._given(*asked)
        return known

    def _given(self, saga: str, step: str, phase: str) -> Labels:
        if self.name(saga) == OTHER:
            return (OTHER, OTHER, phase)
        if step == OTHER or self._free() < SERIES_OF_WORK:
            return (saga, OTHER, phase)
        self._room -= SERIES_OF_WORK
        return (saga, step, phase)

    def _free(self) -> int:
        """Return how many series are left beside what is kept for names."""
        return self._room - max(0, NAMES_KEPT - len(self._names)) * SERIES_OF_NAME


def reading_of(counts: Counts, budget: Budget, now: float) -> Reading:
    """Return what exporters export.

    Args:
        counts: What is counted.
        budget: Who has a label.
        now: The wall time.
    """
    reading: Reading = defaultdict(lambda: defaultdict(float))
    running = Counter(id(live.figures) for live in counts.live.values())
    # Names first, since steps may not take what they need.
    for name, figures in counts.figures.items():
        _add_name(reading, budget.name(name), figures, running[id(figures)])
    for name, figures in counts.figures.items():
        for work in figures.works.values():
            _add_work(reading, budget.work(name, work.label, work.phase.value), work)
    reading[families.LEASES_LOST.name][()] = counts.leases_lost
    reading[families.BUILD.name][_version(),] = 1
    for observer, count in counts.errors.items():
        reading[families.OBSERVER_ERRORS.name][budget.observer(observer),] += count
    if counts.stored is not None:
        _add_stored(reading, counts.stored, budget, now)
    return reading


def _add_name(reading: Reading, label: str, figures: Figures, running: int) -> None:
    """Add what a name has from its beginning, zeros too: an increase is seen only after a value that was there."""
    reading[families.STARTED.name][label,] += figures.started
    reading[families.TAKEOVERS.name][label,] += figures.takeovers
    reading[families.RUNNING.name][label,] += running
    for status in ENDINGS:
        reading[families.FINISHED.name][label, status.value] += figures.finished[status]
        total = figures.durations[status].total if status in figures.durations else 0.0
        reading[families.DURATION.name][label, status.value] += total
    for phase in Phase:
        retries = sum(work.retries for work in figures.works.values() if work.phase is phase)
        reading[families.RETRIES.name][label, phase.value] += retries


def _add_work(reading: Reading, labels: Labels, work: Work) -> None:
    """Add what a step's phase has, outcomes that never were too: attempts and their seconds begin together."""
    counted = {Outcome.SUCCEEDED: work.succeeded, Outcome.FAILED: work.failed, Outcome.UNKNOWN: work.unknown}
    for outcome, count in counted.items():
        reading[families.ATTEMPTS.name][*labels, outcome.value] += count
    reading[families.STEP_DURATION.name][labels] += work.durations.total


def _add_stored(reading: Reading, stored: SagaStatistics, budget: Budget, now: float) -> None:
    for name, by_status in stored.by_status.items():
        label = (budget.stored(name),)
        in_flight = sum(count for status, count in by_status.items() if status not in AT_REST)
        reading[families.IN_FLIGHT.name][label] += in_flight
        reading[families.ATTENTION.name][label] += stored.needs_attention_by_name.get(name, 0)
        age = max(0.0, now - stored.oldest_unfinished_by_name.get(name, now))
        ages = reading[families.OLDEST.name]
        ages[label] = max(ages[label], age)
    reading[families.NEEDS_ATTENTION.name][()] = stored.needs_attention


@cache
def _version() -> str:
    try:
        return version("saga-journal")
    except PackageNotFoundError:
        # Run from a source tree that is not installed.
        return "unknown"
