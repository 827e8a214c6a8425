"""What is counted of the sagas of one name, and of one saga while this process drives it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from saga.monitoring._histogram import Histogram
from saga.types import SagaStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from saga.types import Phase

OTHER = "other"
"""The label that steps share which have no own one."""

LATER_STEPS_MAX = 2
"""So many steps which the first saga of a name did not have get a label of their own."""


class Live:
    """One saga that this process drives.

    Attributes:
        figures: Those of its name.
        since: When it was created, by this process's monotonic clock.
        status: Where it is, as far as its facts told.
    """

    __slots__ = ("figures", "since", "status")

    def __init__(self, figures: Figures, since: float) -> None:
        """Begin to follow a saga."""
        self.figures = figures
        self.since = since
        self.status = SagaStatus.EXECUTING


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
        started: Sagas created here.
        finished: Sagas that came to an end here, by status.
        durations: How long those took, by status.
        works: What is counted of steps, by label and phase.
        takeovers: Sagas taken over after their claim had expired.
    """

    __slots__ = ("_labels", "_room", "durations", "finished", "started", "takeovers", "works")

    def __init__(self, steps_max: int) -> None:
        """Begin at zero; at most so many steps get a label of their own."""
        self.started = 0
        self.finished: Counter[SagaStatus] = Counter()
        self.durations: dict[SagaStatus, Histogram] = {}
        self.works: dict[tuple[str, Phase], Work] = {}
        self.takeovers = 0
        self._labels: set[str] = set()
        self._room = steps_max

    def learn(self, steps: Iterable[str]) -> None:
        """Take note of the steps of the first saga of this name: names that later sagas alone have may be data."""
        for step in steps:
            self._label(step)
        self._room = min(self._room, LATER_STEPS_MAX)

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
        histogram = self.durations.get(status)
        if histogram is None:
            histogram = self.durations[status] = Histogram()
        histogram.add(seconds)
