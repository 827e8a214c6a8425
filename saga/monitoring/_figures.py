"""What is counted of the sagas of one name, and of one saga while this process drives it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from saga.monitoring._histogram import Histogram
from saga.types import SagaStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

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


class Figures:
    """Counts of the sagas of one name.

    Attributes:
        started: Sagas created here.
        finished: Sagas that came to an end here, by status.
        durations: How long those took, by status.
        attempts: Attempts that ended, by label of the step, phase and outcome.
        step_durations: How long user code ran, by label of the step and phase.
        retries: Attempts that are repeated, by phase.
        takeovers: Sagas taken over after their claim had expired.
    """

    __slots__ = (
        "_labels",
        "_room",
        "attempts",
        "durations",
        "finished",
        "retries",
        "started",
        "step_durations",
        "takeovers",
    )

    def __init__(self, steps_max: int) -> None:
        """Begin at zero; at most so many steps get a label of their own."""
        self.started = 0
        self.finished: Counter[SagaStatus] = Counter()
        self.durations: dict[SagaStatus, Histogram] = {}
        self.attempts: Counter[tuple[str, str, str]] = Counter()
        self.step_durations: dict[tuple[str, str], Histogram] = {}
        self.retries: Counter[str] = Counter()
        self.takeovers = 0
        self._labels: dict[str, str] = {}
        self._room = steps_max

    def learn(self, steps: Iterable[str]) -> None:
        """Take note of the steps of the first saga of this name: names that later sagas alone have may be data."""
        for step in steps:
            self.label(step)
        self._room = min(self._room, LATER_STEPS_MAX)

    def label(self, step: str) -> str:
        """Return the label of a step: its name, or the one that all share which came too late."""
        label = self._labels.get(step)
        if label is None:
            if self._room == 0:
                return OTHER
            self._room -= 1
            label = self._labels[step] = step
        return label

    def ended(self, status: SagaStatus, seconds: float) -> None:
        """Count a saga that came to an end."""
        self.finished[status] += 1
        histogram = self.durations.get(status)
        if histogram is None:
            histogram = self.durations[status] = Histogram()
        histogram.add(seconds)

    def ran(self, label: str, phase: str, seconds: float) -> None:
        """Count how long the user code of an attempt ran."""
        key = (label, phase)
        histogram = self.step_durations.get(key)
        if histogram is None:
            histogram = self.step_durations[key] = Histogram()
        histogram.add(seconds)
