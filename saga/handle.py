"""What ``start`` returns: a way to wait for one saga, wherever it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from saga.checks import check_seconds
from saga.environment import CURRENT_SAGA, lent_seat
from saga.exceptions import SagaError, SagaExecutionError
from saga.results import result_of
from saga.types import ENDED, LeaveReason
from saga.visits import load_state

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from saga.clock import Clock
    from saga.definition import SagaDefinition
    from saga.executor import SagaRun
    from saga.storage.base import SagaStorage
    from saga.types import SagaResult, SagaStatus
    from saga.waiting import Latch

FIRST_POLL = 0.05
LONGEST_POLL = 1.0
"""Seconds between two looks at a saga that another process runs."""


class Host(NamedTuple):
    """What a handle needs of its orchestrator: the runs are those of this process, by saga id."""

    storage: SagaStorage
    clock: Clock
    closing: Latch[None]
    runs: Mapping[str, SagaRun]
    cancel: Callable[[str, str], Awaitable[None]]


class SagaHandle:
    """A started saga.

    Attributes:
        saga_id: Its id.
    """

    def __init__(self, host: Host, saga_id: str, definition: SagaDefinition, run: SagaRun | None) -> None:
        """Refer to a saga, and to its run where this process started it."""
        self.saga_id = saga_id
        self._host = host
        self._definition = definition
        self._run = run

    async def wait(self, timeout: float | None = None) -> SagaResult:
        """Wait until the saga rests and return its result. Cancelling the waiting leaves the saga alone.

        Args:
            timeout: Seconds to wait at the most; None for no limit.

        Raises:
            TimeoutError: If it does not rest in time; the saga goes on.
            SagaExecutionError: If the orchestrator stops and hands the saga over, or a step waits for its own saga.
            SagaNotFoundError: If the saga is gone.
            SagaStorageUnavailableError: If the storage is away.
        """
        check_seconds("timeout", timeout)
        if CURRENT_SAGA.get() == self.saga_id:
            message = f"a step of saga {self.saga_id} waits for its own saga, which would never end"
            raise SagaExecutionError(message, saga_id=self.saga_id)
        with lent_seat(self._host.runs):
            clock = self._host.clock
            until = None if timeout is None else clock.monotonic() + timeout
            poll = FIRST_POLL
            while True:
                run = self._host.runs.get(self.saga_id)
                if run is None or not run.exists:
                    # One that is not stored yet is somebody's attempt to start the same saga, which runs elsewhere.
                    run = self._run
                if run is not None:
                    self._run = run
                    if await self._rests(run, until, timeout):
                        return result_of(self.saga_id, run.definition, run.state, run.live_errors)
                    self._run = None
                if self._host.closing.done:
                    raise self._handed_over()
                _, state = await load_state(self._host.storage, self.saga_id)
                if state.at_rest:
                    return result_of(self.saga_id, self._definition, state, {})
                left = poll if until is None else min(poll, until - clock.monotonic())
                if left <= 0:
                    raise self._late(timeout)
                await self._host.closing.wait_up_to(left, clock)
                poll = min(LONGEST_POLL, poll * 2)

    async def cancel(self, reason: str) -> None:
        """Ask to cancel the saga; see ``SagaOrchestrator.cancel``, as for what it raises."""
        await self._host.cancel(self.saga_id, reason)

    async def status(self) -> SagaStatus:
        """Return the saga's status as it is stored.

        Raises:
            SagaNotFoundError: If the saga is gone.
            SagaStorageUnavailableError: If the storage is away.
        """
        stored, _ = await load_state(self._host.storage, self.saga_id)
        return stored.record.status

    async def _rests(self, run: SagaRun, until: float | None, timeout: float | None) -> bool:
        """Wait for a run; say whether the saga rests where that left it."""
        clock = self._host.clock
        try:
            if not await run.finished.wait_up_to(None if until is None else until - clock.monotonic(), clock):
                raise self._late(timeout)
            rests = await run.finished.wait() is LeaveReason.REST
        except SagaError:
            # Told once; what another run makes of the saga is asked for the next time.
            self._run = None
            raise
        return rests and await self._still_rests(run)

    async def _still_rests(self, run: SagaRun) -> bool:
        """Whether the saga is where this process left it: what has not ended may have been retried since."""
        if run.state.status in ENDED or self._host.closing.done:
            return True
        _, state = await load_state(self._host.storage, self.saga_id)
        return state.version == run.state.version

    def _late(self, timeout: float | None) -> TimeoutError:
        return TimeoutError(f"saga {self.saga_id} does not rest after {timeout:g} s; it goes on")

    def _handed_over(self) -> SagaExecutionError:
        message = f"saga {self.saga_id} was handed over: the orchestrator stops, and another process carries it on"
        return SagaExecutionError(message, saga_id=self.saga_id)
