"""Async tests in this folder run in virtual time: nothing here waits for a real clock."""

from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace

import pytest

import saga.clock
from tests.virtual import EPOCH, VirtualLoop

_loops: list[VirtualLoop] = []


def _make_loop() -> VirtualLoop:
    loop = VirtualLoop(seconds_max=1_000_000.0)
    _loops.append(loop)
    return loop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], VirtualLoop]]:
    """Give every async test a loop whose clock jumps to the next timer."""
    return {"virtual": _make_loop}


@pytest.fixture(autouse=True)
def nothing_goes_unnoticed() -> Iterator[None]:
    """Fail a test whose loop was given something for its exception handler that the test did not take back."""
    _loops.clear()
    yield
    reported = [report for loop in _loops for report in loop.reported]
    assert reported == []


@pytest.fixture
def system_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system's clock, which `Saga.execute()` uses, tell the running loop's time."""

    def seconds(_clock: object = None) -> float:
        return _loops[-1].time()

    told = SimpleNamespace(time=lambda: EPOCH + seconds(), monotonic=seconds, clock_gettime=seconds, CLOCK_BOOTTIME=7)
    monkeypatch.setattr(saga.clock, "time", told)
    monkeypatch.setattr(saga.clock.SystemClock, "now", lambda _clock: EPOCH + seconds())
    monkeypatch.setattr(saga.clock.SystemClock, "monotonic", seconds)
