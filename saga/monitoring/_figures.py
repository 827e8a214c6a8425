"""What is counted of the sagas of one name, and of one saga while this process drives it."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from math import sqrt
from typing import TYPE_CHECKING

from saga.types import Phase, SagaStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from saga.types import SagaStatistics

OTHER = "other"
"""The label that those share which have no own one."""

LATER_STEPS_MAX = 2
"""So many steps which the first saga of a name did not have get a label of their own."""

RESTED_MAX = 10_000
"""So many sagas that failed or parked here are remembered, in case they are claimed again."""

_MANTISSAS = (1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0, 6.3, 8.0)

BOUNDS = tuple(float(f"{mantissa}e{decade}") for decade in range(-5, 7) for mantissa in _MANTISSAS)
"""Upper bounds of the buckets, from 10 microseconds to 92 days, in seconds; ten a decade, at most 28 % apart."""


class Histogram:
    """How often durations fell between any two bounds: percentiles without keeping what was measured.

    Attributes:
        total: The sum of all durations, in seconds.
        count: How many there are.
        least: The shortest; 0.0 if there is none.
        most: The longest.
    """

    __slots__ = ("_counts", "count", "least", "most", "total")

    def __init__(self) -> None:
        """Begin empty."""
        self._counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        self.count = 0
        self.least = 0.0
        self.most = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        if self.count == 0 or seconds < self.least:
            self.least = seconds
        self.most = max(self.most, seconds)
        self.total += seconds
        self.count += 1

    def percentile(self, percent: float) -> float:
        """Return a duration that this share of all does not exceed; 0.0 if there is none.

        It is the geometric middle of its bucket, so it is true to within 14 % between the first bound and the last.
        """
        goal = self.count * percent / 100
        seen = 0
        for place, count in enumerate(self._counts):
            seen += count
            if count and seen >= goal:
                high = BOUNDS[place] if place < len(BOUNDS) else self.most
                middle = sqrt(BOUNDS[place - 1] * high) if 0 < place < len(BOUNDS) else high
                return min(max(middle, self.least), self.most)
        return 0.0


class Live:
    """One saga that this process drives.

    Attributes:
        figures: Those of its name.
        since: When it was created, by this process's monotonic clock.
        status: Where it is; None while no fact has told it, after a claim of what another process left.
        whole: Whether this process has driven it from its beginning.
    """

    __slots__ = ("figures", "since", "status", "whole")

    def __init__(self, figures: Figures, since: float, status: SagaStatus | None, *, whole: bool) -> None:
        """Begin to follow a saga."""
        self.figures = figures
        self.since = since
        self.status = status
        self.whole = whole


class Work:
    """Counts of one phase of one step, or of all steps that share a label.

    Attributes:
        label: The label of the step.
        phase: Action or compensation.
        succeeded: Attempts that succeeded.
        failed: Attempts that failed definitely.
        unknown: Attempts of which nobody knows the outcome.
        retries: Attempts that are repeated.
        durations: How long user code ran.
    """

    __slots__ = ("durations", "failed", "label", "phase", "retries", "succeeded", "unknown")

    def __init__(self, label: str, phase: Phase) -> None:
        """Begin at zero."""
        self.label = label
        self.phase = phase
        self.succeeded = 0
        self.failed = 0
        self.unknown = 0
        self.retries = 0
        self.durations = Histogram()


class Figures:
    """Counts of the sagas of one name.

    Attributes:
        started: Sagas that this process was the first to drive.
        finished: How often sagas came to an end here, by status.
        resting: Sagas that ended, failed or parked here and were not claimed here again, by status.
        durations: How long those that ended took, by status.
        works: What is counted of steps, by label and phase.
        takeovers: Sagas taken over after their claim had expired.
        learned: Whether the steps are known that get a label of their own.
    """

    __slots__ = ("_labels", "_room", "durations", "finished", "learned", "resting", "started", "takeovers", "works")

    def __init__(self, steps_max: int) -> None:
        """Begin at zero; at most so many steps get a label of their own."""
        self.started = 0
        self.finished: Counter[SagaStatus] = Counter()
        self.resting: Counter[SagaStatus | None] = Counter()
        self.durations: dict[SagaStatus, Histogram] = {}
        self.works: dict[tuple[str, Phase], Work] = {}
        self.takeovers = 0
        self.learned = False
        self._labels: set[str] = set()
        self._room = steps_max

    def learn(self, steps: Iterable[str] = ()) -> None:
        """Take note of the steps of a saga of this name: names that later ones alone have may be data.

        Their actions are counted from here, at 0, so that the first one that fails makes a difference.
        """
        for step in steps:
            self.work(step, Phase.ACTION)
        self._room = min(self._room, LATER_STEPS_MAX)
        self.learned = True

    def work(self, step: str, phase: Phase) -> Work:
        """Return the counts of a step's phase."""
        return self.works.get((step, phase)) or self._work(self._label(step), phase)

    def _work(self, label: str, phase: Phase) -> Work:
        work = self.works.get((label, phase))
        if work is None:
            work = self.works[label, phase] = Work(label, phase)
        return work

    def _label(self, step: str) -> str:
        """Return the label of a step: its name, or the one that all share which came too late."""
        if step not in self._labels:
            if self._room == 0:
                return OTHER
            self._room -= 1
            self._labels.add(step)
        return step

    def ended(self, status: SagaStatus, seconds: float) -> None:
        """Count a saga that came to an end."""
        self.finished[status] += 1
        self.resting[status] += 1
        histogram = self.durations.get(status)
        if histogram is None:
            histogram = self.durations[status] = Histogram()
        histogram.add(seconds)


class Counts:
    """Everything that is counted in this process.

    Attributes:
        figures: Those of each saga name.
        live: The sagas that this process drives, by id.
        rested: Sagas that failed or parked here, by id: where they were.
        leases_lost: Sagas that another process took from this one.
        errors: Errors that observers raised, by type.
        stored: What the storage said last; None if nobody asks it or it is away.
    """

    __slots__ = ("errors", "figures", "leases_lost", "live", "rested", "stored")

    def __init__(self) -> None:
        """Begin at zero."""
        self.figures: dict[str, Figures] = {}
        self.live: dict[str, Live] = {}
        self.rested: dict[str, SagaStatus | None] = {}
        self.leases_lost = 0
        self.errors: Counter[str] = Counter()
        self.stored: SagaStatistics | None = None

    def rest(self, saga_id: str, status: SagaStatus | None) -> None:
        """Remember a saga that a person may wake; the oldest is forgotten where there are too many."""
        self.rested[saga_id] = status
        if len(self.rested) > RESTED_MAX:
            del self.rested[next(iter(self.rested))]

    def wake(self, saga_id: str, figures: Figures) -> SagaStatus | None:
        """Forget that a saga rests; return where it goes on, None if that is not known."""
        if saga_id not in self.rested:
            return None
        status = self.rested.pop(saga_id)
        figures.resting[status] -= 1
        return SagaStatus.COMPENSATING if status is SagaStatus.FAILED else status
