"""A clock that moves only when a test says so."""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeTimer:
    """A timer of a FakeClock."""

    def __init__(self, callback: Callable[[], None]) -> None:
        """Keep what to call."""
        self._callback: Callable[[], None] | None = callback

    @property
    def is_set(self) -> bool:
        """Whether it can still fire."""
        return self._callback is not None

    def cancel(self) -> None:
        """Forget the timer; without effect once it fired."""
        self._callback = None

    def fire(self) -> None:
        """Call back, once, unless cancelled."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class FakeClock:
    """A Clock whose time stands still until ``advance`` moves it.

    Attributes:
        number: What ``random()`` returns; set it at any time.
        boot: What ``boot_id()`` returns; set another to play a restart of the host.
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        """Begin at this wall time, in seconds since the epoch, with all other clocks at 1,000 seconds."""
        self._now = now
        self._since = 1_000.0
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._places = count()
        self._tokens = count(1)
        self.number = 0.5
        self.boot = "boot-1"

    def now(self) -> float:
        """Return the wall time, in seconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._since

    def boot_time(self) -> float:
        """Return the same seconds as ``monotonic``."""
        return self._since

    def boot_id(self) -> str:
        """Return ``boot``."""
        return self.boot

    def call_later(self, seconds: float, callback: Callable[[], None]) -> FakeTimer:
        """Call back once ``advance`` has moved the clock by so many seconds; not before, even for 0 seconds."""
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (self._since + max(seconds, 0.0), next(self._places), timer))
        return timer

    def random(self) -> float:
        """Return ``number``."""
        return self.number

    def token(self) -> str:
        """Return ``token-1``, ``token-2`` and so on."""
        return f"token-{next(self._tokens)}"

    def advance(self, seconds: float) -> None:
        """Move every clock forward and fire the timers that come due, in the order of their time.

        While a timer fires, the clock shows the instant it was set for. Timers that a callback sets fire too where
        they come due. What the callbacks wake up runs when the loop next turns.

        Args:
            seconds: How far; 0 fires what is due now.

        Raises:
            ValueError: If the clock would go back.
        """
        if not seconds >= 0:
            message = f"a clock goes forward only; got {seconds!r} seconds"
            raise ValueError(message)
        end = self._since + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self._move(due)
            timer.fire()
        self._move(end)

    def set_wall_time(self, now: float) -> None:
        """Step the wall clock alone, forward or back, as an administrator does."""
        self._now = now

    def next_timer(self) -> float | None:
        """Return in how many seconds the next timer fires; None if none is set."""
        while self._timers and not self._timers[0][2].is_set:
            heapq.heappop(self._timers)
        return self._timers[0][0] - self._since if self._timers else None

    def _move(self, since: float) -> None:
        # A timer set in the past (by a callback, for 0 seconds) must not turn the clock back.
        step = max(since - self._since, 0.0)
        self._since += step
        self._now += step
