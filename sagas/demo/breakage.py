"""Break a worker on purpose: calls of a step go wrong, and the worker dies in the middle of a step."""

from __future__ import annotations

import os
import signal
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from saga import Observer, SagaContext, SagaInfo
from sagas.http import header_safe

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from sagas.demo.plan import Crash, StepFault


class BrokenCalls:
    """Asks the services to break the calls of steps; hang ``break_it`` into the clients' requests."""

    def __init__(self) -> None:
        self._by_key: dict[str, deque[str]] = {}

    def plan(self, saga_id: str, fault: StepFault) -> None:
        """Break the next calls of a step of this saga."""
        key = header_safe(f"{saga_id}:{fault.step}:{fault.phase}")
        self._by_key.setdefault(key, deque()).extend([fault.fault] * fault.times)

    async def break_it(self, request: httpx.Request) -> None:
        """Break this call if that is planned."""
        faults = self._by_key.get(request.headers.get("idempotency-key", ""))
        if faults:
            request.headers["X-Fault"] = faults.popleft()


class Killer(Observer):
    """Kills this process by SIGKILL in the step of a saga that it was told."""

    def __init__(self) -> None:
        self._crashes: dict[str, Crash] = {}

    def plan(self, saga_id: str, crash: Crash) -> None:
        """Die in this step of this saga."""
        self._crashes[saga_id] = crash

    @contextmanager
    def around(self, saga: SagaInfo, ctx: SagaContext) -> Iterator[None]:
        """Die before the step's code, or after it and before its outcome is recorded."""
        crash = self._crashes.get(saga.saga_id)
        here = crash is not None and (crash.step, crash.phase) == (ctx.step_name, ctx.phase)
        if here and crash is not None and crash.when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            yield
        finally:
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
