"""Break calls on purpose, to see what a saga makes of it, and slow them all down to what real services take.

A caller asks for a fault with the header ``X-Fault``; faults of coming calls are planned with ``POST /faults`` or on
the command line. To add a fault, write a function and name it in ``FAULTS``.

| fault             | effect        | what the caller sees                      |
|-------------------|---------------|-------------------------------------------|
| ``decline``       | none          | 409, a refusal, kept as any other is; or  |
|                   |               | what stands under the key already         |
| ``error-before``  | none          | 503                                       |
| ``error-after``   | happened      | 500                                       |
| ``reply-lost``    | happened      | the connection closes without an answer   |
| ``slow=SECONDS``  | happens later | the answer, or its own timeout            |
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import defaultdict, deque
from typing import TYPE_CHECKING

import msgspec
from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from sagas.services.ledger import error_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    Fault = Callable[[ASGIApp, Scope, Receive, Send, str], Awaitable[None]]


DECLINE = "sagas.decline"
"""What is true in a call's ASGI scope if the service is to refuse it.

Not refused here: whether something stands under the key already only the service can say, in its transaction. A
refusal of what has happened would be a lie on which the caller turns back.
"""

TIMES_MAX = 10_000


class PlannedFault(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /faults``: break the next ``times`` calls of ``path``.

    Raises:
        ValueError: If there is no such fault, or ``times`` is not from 1 to 10,000.
    """

    path: str
    fault: str
    times: int = 1

    def __post_init__(self) -> None:
        """Refuse what would surprise a caller later."""
        check_fault(self.fault)
        if not 1 <= self.times <= TIMES_MAX:
            raise ValueError(f"times must be from 1 to {TIMES_MAX}, not {self.times}")


class Faults:
    """ASGI middleware that breaks a call if its header or the plan says so, after the time that a call takes."""

    def __init__(self, app: ASGIApp, plan: FaultPlan, delay: float) -> None:
        self._app = app
        self._plan = plan
        self._delay = delay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, with its fault if it has one."""
        spec = ""
        if scope["type"] == "http":
            if self._delay and scope["method"] == "POST":
                receive = await _received(receive)
                await asyncio.sleep(self._delay * random.uniform(0.5, 1.5))  # noqa: S311  (a delay is no secret)
            spec = Headers(scope=scope).get("x-fault") or self._plan.next(scope["path"])
        if not spec:
            await self._app(scope, receive, send)
            return
        try:
            check_fault(spec)
        except ValueError as error:
            await JSONResponse(error_body("unknown_fault", str(error)), status_code=400)(scope, receive, send)
            return
        name, _, value = spec.partition("=")
        await FAULTS[name](self._app, scope, receive, send, value)


class FaultPlan:
    """The faults of coming calls, by path, in order."""

    def __init__(self) -> None:
        self._queues: defaultdict[str, deque[str]] = defaultdict(deque)

    def add(self, planned: PlannedFault) -> None:
        """Break the next calls of a path."""
        self._queues[planned.path].extend([planned.fault] * planned.times)

    def next(self, path: str) -> str:
        """Take the fault of a call that arrives now; empty if it has none."""
        queue = self._queues.get(path)
        return queue.popleft() if queue else ""


def check_fault(spec: str) -> None:
    """Check that this is the name of a fault, and for ``slow`` how many seconds.

    Raises:
        ValueError: If it is not.
    """
    name, _, value = spec.partition("=")
    if name not in FAULTS:
        raise ValueError(f"no fault is called {name!r}; there are {', '.join(FAULTS)}")
    if name != "slow":
        if value:
            raise ValueError(f"{name} takes no value, not {value!r}")
        return
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"slow needs seconds from 0, such as slow=0.5, not {value!r}")


async def _decline(app: ASGIApp, scope: Scope, receive: Receive, send: Send, _value: str) -> None:
    await app({**scope, DECLINE: True}, receive, send)


async def _error_before(_app: ASGIApp, scope: Scope, receive: Receive, send: Send, _value: str) -> None:
    body = error_body("fault", "failed on purpose, before the effect")
    await JSONResponse(body, status_code=503)(scope, receive, send)


async def _error_after(app: ASGIApp, scope: Scope, receive: Receive, send: Send, _value: str) -> None:
    await app(scope, receive, _unsent)
    body = error_body("fault", "failed on purpose, after the effect")
    await JSONResponse(body, status_code=500)(scope, receive, send)


async def _reply_lost(app: ASGIApp, scope: Scope, receive: Receive, send: Send, _value: str) -> None:
    await app(scope, receive, _unsent)
    # An answer that is begun and never finished makes the server close the connection.
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})


async def _slow(app: ASGIApp, scope: Scope, receive: Receive, send: Send, value: str) -> None:
    receive = await _received(receive)
    await asyncio.sleep(float(value))
    await app(scope, receive, send)


async def _received(receive: Receive) -> Receive:
    """Take the whole request now, so that it takes effect later even if its caller is gone by then."""
    messages: deque[Message] = deque()
    while not messages or messages[-1].get("more_body", False):
        messages.append(await receive())

    async def replay() -> Message:
        return messages.popleft() if messages else await receive()

    return replay


async def _unsent(_message: Message) -> None:
    """Take a part of the answer and drop it."""


FAULTS: dict[str, Fault] = {
    "decline": _decline,
    "error-before": _error_before,
    "error-after": _error_after,
    "reply-lost": _reply_lost,
    "slow": _slow,
}
