"""Time and randomness: the engine's only clock, and where it draws its random numbers."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class TimerHandle(Protocol):
    """A timer that can be cancelled."""

    def cancel(self) -> None:
        """Forget the timer; without effect once it fired."""


class Clock(Protocol):
    """What the engine asks of time and chance."""

    def now(self) -> float:
        """Return the wall time, in seconds since the epoch."""

    def monotonic(self) -> float:
        """Return seconds since some instant; never goes back."""

    def boot_time(self) -> float:
        """Return seconds since the host booted, suspension included where the host can tell."""

    def boot_id(self) -> str:
        """Return what tells one boot of the host from another; empty where the host cannot tell."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> TimerHandle:
        """Call back on the running loop after so many seconds."""

    def random(self) -> float:
        """Return a number from 0 to 1."""

    def token(self) -> str:
        """Return a fresh string that nobody can guess."""


class SystemClock:
    """The host's clocks and the system's randomness."""

    def __init__(self) -> None:
        """Find out which clocks the host has."""
        self._boot_clock = getattr(time, "CLOCK_BOOTTIME", None)
        self._boot_id = _read_boot_id()

    # These two are read many times a step, so they are the C functions themselves.
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    def boot_time(self) -> float:
        """Return seconds of CLOCK_BOOTTIME, which goes on during suspension; elsewhere the monotonic clock."""
        return time.monotonic() if self._boot_clock is None else time.clock_gettime(self._boot_clock)

    def boot_id(self) -> str:
        """Return the kernel's boot id."""
        return self._boot_id

    def call_later(self, seconds: float, callback: Callable[[], None]) -> TimerHandle:
        """Call back on the running loop after so many seconds."""
        return asyncio.get_running_loop().call_later(seconds, callback)

    def random(self) -> float:
        """Return a number from 0 to 1; retries need no secrecy."""
        return random.random()  # noqa: S311 - spreads retries, guards nothing

    def token(self) -> str:
        """Return 128 random bits as text."""
        return secrets.token_hex(16)


def _read_boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


async def sleep(clock: Clock, seconds: float) -> None:
    """Wait for so many seconds of this clock."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    handle = clock.call_later(seconds, lambda: None if done.done() else done.set_result(None))
    try:
        await done
    finally:
        handle.cancel()
