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
    from collections.abc import Iterator

    from saga.monitoring._families import Family
    from saga.monitoring._figures import Counts, Figures, Work
    from saga.types import SagaStatistics

Labels = tuple[str, ...]
Reading = dict[str, dict[Labels, float]]
"""By the name of a family: the values of its labels, and what they stand at."""

ENDINGS = (SagaStatus.COMPLETED, SagaStatus.ROLLED_BACK, SagaStatus.FAILED)

SERIES_OF_NAME = 17
"""What one saga name makes beside its steps: 5 of each process, 9 of its endings, 3 that are read from the storage."""

SERIES_OF_WORKS = 2 * (len(Outcome) + 1)
"""What one step label makes at most: in each phase an outcome's attempts, and the seconds they took."""

NAMES_KEPT = 4
"""For so many names there is room even where steps come first."""

OBSERVERS_MAX = 4

SERIES_SHARED = SERIES_OF_NAME + SERIES_OF_WORKS + OBSERVERS_MAX + 1 + 3
"""What is there in any case: what stands under ``other``, errors of observers, and three without labels of users."""

SERIES_MIN = SERIES_SHARED + NAMES_KEPT * SERIES_OF_NAME


class Budget:
    """Gives labels away while there is room for their series; whoever comes later shares ``other``.

    What was given is never taken back, and what was refused is never given: a counter that moved would lie.
    """

    def __init__(self, series_max: int) -> None:
        """Begin with nothing given."""
        self._room = series_max - SERIES_SHARED
        self._names: set[str] = set()
        self._observers: set[str] = set()
        self._works: dict[tuple[str, Labels], Labels] = {}

    def name(self, name: str) -> str:
        """Return the label of a saga name."""
        if name not in self._names:
            if self._room < SERIES_OF_NAME:
                return OTHER
            self._room -= SERIES_OF_NAME
            self._names.add(name)
        return name

    def observer(self, name: str) -> str:
        """Return the label of an observer's type."""
        if name not in self._observers:
            if len(self._observers) == OBSERVERS_MAX:
                return OTHER
            self._observers.add(name)
        return name

    def work(self, family: Family, labels: Labels) -> Labels:
        """Return the labels of a series that begins with a saga and a step."""
        known = self._works.get((family.name, labels))
        if known is None:
            known = self._works[family.name, labels] = self._shared(family, labels)
        return known

    def _shared(self, family: Family, labels: Labels) -> Labels:
        saga, step, *others = labels
        saga = self.name(saga)
        if saga == OTHER:
            return (OTHER, OTHER, *others)
        kept = max(0, NAMES_KEPT - len(self._names)) * SERIES_OF_NAME
        if self._room > kept:
            self._room -= 1
            return labels
        # The last resort is one for all names, for which alone there always is room.
        return (OTHER, OTHER, *others) if step == OTHER else self.work(family, (saga, OTHER, *others))


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
            for family, labels, value in series_of(name, work):
                reading[family.name][budget.work(family, labels)] += value
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


def series_of(name: str, work: Work) -> Iterator[tuple[Family, Labels, float]]:
    """Yield what a step's phase has; outcomes that never were are no series, since there are too many of them."""
    labels = (name, work.label, work.phase.value)
    counted = {Outcome.SUCCEEDED: work.succeeded, Outcome.FAILED: work.failed, Outcome.UNKNOWN: work.unknown}
    for outcome, count in counted.items():
        if count:
            yield families.ATTEMPTS, (*labels, outcome.value), count
    if work.durations.count:
        yield families.STEP_DURATION, labels, work.durations.total


def _add_stored(reading: Reading, stored: SagaStatistics, budget: Budget, now: float) -> None:
    for name, by_status in stored.by_status.items():
        label = (budget.name(name),)
        in_flight = sum(count for status, count in by_status.items() if status not in AT_REST)
        reading[families.IN_FLIGHT.name][label] += in_flight
        reading[families.PARKED.name][label] += stored.needs_attention_by_name.get(name, 0)
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
