"""The HTTP face that every service has: typed bodies, a key on every mutating call, the ledger to read back.

A service declares its actions, undos and reads; this module does the rest of HTTP for them.

A caller that can still turn back must be able to rely on a refusal: a late duplicate of the call must not take effect
after all, so the refusal is kept under the key. A caller that cannot turn back any more asks again under the same key
once the cause is mended, so there a refusal is not kept. Which of the two it is, each action's declaration says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route

from sagas.checks import NUMBER_MAX
from sagas.services.faults import DECLINE, FaultPlan, Faults, PlannedFault
from sagas.services.ledger import Answer, Call, RefusedError, error_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from sagas.services.ledger import Entry, Facts, Ledger

T = TypeVar("T", bound=msgspec.Struct)

PAGE_ROWS = 1_000

Number = Annotated[int, msgspec.Meta(ge=-NUMBER_MAX, le=NUMBER_MAX)]
"""A whole number in a body, as large as can be kept. Whether it may be below 1 the effect says, under the key."""

SEQ_DIGITS_MAX = 18
"""Every number of so many digits fits into SQLite's integers."""


class Undo(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an undo: the idempotency key of the action that it undoes."""

    undoes: str


U = TypeVar("U", bound=Undo)


class Service:
    """Routes over one ledger.

    Attributes:
        ledger: Where everything is kept.
        faults: The faults of coming calls.
    """

    def __init__(self, ledger: Ledger, problems: Callable[[Ledger], list[str]]) -> None:
        """Begin with the routes that every service has.

        Args:
            ledger: Where everything is kept.
            problems: Compares the service's tables with its ledger and says where they differ.
        """
        self.ledger = ledger
        self._problems = problems
        self.faults = FaultPlan()
        self._routes = [
            Route("/ledger", self._read_ledger, methods=["GET"]),
            Route("/audit", self._read_audit, methods=["GET"]),
            Route("/faults", self._plan_fault, methods=["POST"]),
        ]

    def app(self, delay: float = 0.0) -> Starlette:
        """Return the ASGI application.

        Args:
            delay: Seconds that a mutating call takes on average: each takes between half of it and half as much again.
        """
        return Starlette(routes=self._routes, middleware=[Middleware(Faults, plan=self.faults, delay=delay)])

    def action(
        self, path: str, body: type[T], effect: Callable[[Entry, T], Facts], *, keep_refusals: bool = True
    ) -> None:
        """Serve an action: ``effect`` happens once per key, in the ledger's transaction.

        Args:
            path: Where it is asked for.
            body: The type of what is asked.
            effect: Makes it happen, or raises ``RefusedError``.
            keep_refusals: Whether a repeat gets a refusal again. False for what is asked for after a point of no
                return.
        """

        async def handle(call: Call, asked: T) -> Answer:
            return self.ledger.perform(
                call, lambda entry: effect(entry, asked), status=201, keep_refusals=keep_refusals
            )

        self.mutation(path, body, handle, keep_refusals=keep_refusals)

    def undo(self, path: str, body: type[U], effect: Callable[[Entry, U], Facts]) -> None:
        """Serve an undo: ``effect`` happens only if the action did; else the action's key gets a tombstone."""

        async def handle(call: Call, asked: U) -> Answer:
            return self.ledger.undo(call, asked.undoes, lambda entry: effect(entry, asked))

        self.mutation(path, body, handle)

    def mutation(
        self,
        path: str,
        body: type[T],
        handle: Callable[[Call, T], Awaitable[Answer]],
        *,
        keep_refusals: bool = False,
    ) -> None:
        """Serve a mutating call that may need more than one transaction.

        Args:
            path: Where it is asked for.
            body: The type of what is asked.
            handle: Answers it.
            keep_refusals: Whether a repeat of a call that is refused on purpose is refused again.
        """

        async def endpoint(request: Request) -> Response:
            key = request.headers.get("idempotency-key", "")
            if not key:
                return _reply(Answer(400, error_body("no_key", "a mutating call needs the header Idempotency-Key")))
            try:
                asked = msgspec.json.decode(await request.body(), type=body)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                # What stands under the key comes first, since "cannot be read" says nothing about an earlier call.
                stands = self.ledger.known(Call(key, f"{path}, unreadable"))
                return _reply(stands or Answer(400, error_body("bad_request", str(error))))
            canonical = msgspec.json.encode(asked, order="sorted").decode()
            call = Call(key, f"{path} {canonical}")
            if request.scope.get(DECLINE):
                return _reply(self.ledger.perform(call, _decline, keep_refusals=keep_refusals))
            return _reply(await handle(call, asked))

        self._routes.append(Route(path, endpoint, methods=["POST"]))

    def read(self, path: str, answer: Callable[[Ledger], Any]) -> None:
        """Serve a question that changes nothing."""

        async def endpoint(_request: Request) -> Response:
            return _json(answer(self.ledger))

        self._routes.append(Route(path, endpoint, methods=["GET"]))

    async def _read_ledger(self, request: Request) -> Response:
        after = request.query_params.get("after", "0")
        if not after.isdecimal() or len(after) > SEQ_DIGITS_MAX:
            return _reply(
                Answer(400, error_body("bad_request", f"after must be a ledger row's seq, not {after[:40]!r}"))
            )
        return _json(self.ledger.rows(int(after), PAGE_ROWS))

    async def _read_audit(self, _request: Request) -> Response:
        return _json({**self.ledger.counts(), "problems": self._problems(self.ledger)})

    async def _plan_fault(self, request: Request) -> Response:
        try:
            planned = msgspec.json.decode(await request.body(), type=PlannedFault)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return _reply(Answer(400, error_body("bad_request", str(error))))
        self.faults.add(planned)
        return Response(status_code=204)


def _decline(_entry: Entry) -> Facts:
    raise RefusedError(409, "declined", "declined on purpose")


def _reply(answer: Answer) -> Response:
    headers = {"Idempotent-Replayed": "true"} if answer.repeated else {}
    return _json(answer.body, answer.status, headers)


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status_code=status, headers=headers, media_type="application/json")
