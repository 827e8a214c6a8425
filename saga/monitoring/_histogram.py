"""A histogram of durations with a fixed number of buckets: percentiles without keeping what was measured."""

from __future__ import annotations

from bisect import bisect_left

_STEPS = (1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0, 6.3, 8.0)
"""Ten bounds for each decade, about 26 % apart."""

BOUNDS = tuple(float(f"{step}e{decade}") for decade in range(-5, 7) for step in _STEPS)
"""Upper bounds of the buckets, from 10 microseconds to 92 days, in seconds."""


class Histogram:
    """How often durations fell between any two bounds.

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
        """Return a duration that this share of all does not exceed, true to within a bucket; 0.0 if there is none."""
        goal = self.count * percent / 100
        seen = 0
        for place, count in enumerate(self._counts):
            seen += count
            if count and seen >= goal:
                low = BOUNDS[place - 1] if place else 0.0
                high = BOUNDS[place] if place < len(BOUNDS) else self.most
                inside = low + (high - low) * (1 - (seen - goal) / count)
                return min(max(inside, self.least), self.most)
        return 0.0

    def below(self, bounds: tuple[float, ...]) -> list[int]:
        """Return how many durations do not exceed each of these bounds, which must be among ``BOUNDS``."""
        return [sum(self._counts[: bisect_left(BOUNDS, bound) + 1]) for bound in bounds]

    def copy(self) -> Histogram:
        """Return another one that says the same."""
        twin = Histogram()
        twin._counts = self._counts.copy()
        twin.total, twin.count, twin.least, twin.most = self.total, self.count, self.least, self.most
        return twin
