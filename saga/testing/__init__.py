"""Tools for tests: a clock that stands still, and the suite that proves a storage keeps its promises."""

from saga.testing.clock import FakeClock

__all__ = ["FakeClock"]
