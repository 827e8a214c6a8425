"""Instants and durations as storages keep them: whole microseconds."""

from __future__ import annotations

_SECONDS_MAX = 1e11
"""Three thousand years; what lies beyond never comes, and would not fit a column together with an instant."""


def micros(value: float) -> int:
    """Return seconds as microseconds."""
    if not -_SECONDS_MAX < value < _SECONDS_MAX:
        value = _SECONDS_MAX if value > 0 else -_SECONDS_MAX
    return round(value * 1_000_000)


def seconds(value: int) -> float:
    """Return microseconds as seconds."""
    return value / 1_000_000
