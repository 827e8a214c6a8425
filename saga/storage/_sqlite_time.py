"""Instants and durations as SQLite keeps them: whole microseconds."""

from __future__ import annotations

import msgspec

_SECONDS_MAX = 1e11
"""Three thousand years; what lies beyond never comes, and would not fit a column together with an instant."""


class Instant(msgspec.Struct, frozen=True):
    """The moment of one transaction.

    Attributes:
        at: Microseconds since the epoch.
        up: Microseconds by which leases are judged.
        boot: Which boot of the host ``up`` belongs to.
    """

    at: int
    up: int
    boot: str


def micros(value: float) -> int:
    """Return seconds as microseconds."""
    if not -_SECONDS_MAX < value < _SECONDS_MAX:
        value = _SECONDS_MAX if value > 0 else -_SECONDS_MAX
    return round(value * 1_000_000)


def seconds(value: int) -> float:
    """Return microseconds as seconds."""
    return value / 1_000_000
